//! One person's shares on the stack: at most 64, none if the person has withdrawn.

use schemas::MAX_CATEGORIES;

/// Shares in the order of the budget's categories. Without any, the person does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shares {
    basis_points: [u16; MAX_CATEGORIES],
    len: usize,
}

impl Shares {
    pub const NONE: Shares = Shares { basis_points: [0; MAX_CATEGORIES], len: 0 };

    /// Copies shares that the record decoder has validated: at most 64, each at most 10,000.
    pub fn from_basis_points(basis_points: &[u32]) -> Self {
        let mut shares = Self::NONE;
        for share in basis_points.iter().take(MAX_CATEGORIES) {
            shares.push(*share as u16);
        }
        shares
    }

    pub fn push(&mut self, share: u16) {
        self.basis_points[self.len] = share;
        self.len += 1;
    }

    /// Whether there are shares: the person has not withdrawn.
    pub fn counts(&self) -> bool {
        self.len > 0
    }

    pub fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        self.basis_points[..self.len].iter().copied()
    }
}
