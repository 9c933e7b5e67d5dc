//! One person's split of a budget: a share for each category, in basis points, together the whole.

/// A whole person's budget: 100 % in basis points.
pub const BASIS_POINTS_PER_PERSON: u64 = 10_000;

/// Why shares are not an allocation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AllocationFault {
    /// The shares do not make the whole.
    #[error("the shares make {sum} basis points instead of 10000")]
    Sum {
        /// What they make.
        sum: u64,
    },
    /// A number of categories that no budget has.
    #[error("{0} categories, where a budget has 2 to 64")]
    Categories(usize),
}

/// Shares of all of a budget's categories, in the budget's order, together exactly 10,000 basis points.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allocation(Box<[u16]>);

impl Allocation {
    /// Checks and takes the shares.
    ///
    /// # Errors
    /// When they do not make 10,000 or are for a number of categories that no budget has.
    pub fn new(basis_points: &[u32]) -> Result<Self, AllocationFault> {
        check_shares(basis_points)?;
        // Each share fits: it is at most the sum, 10,000.
        Ok(Self(basis_points.iter().map(|share| *share as u16).collect()))
    }

    /// The shares, in the budget's order.
    pub fn basis_points(&self) -> &[u16] {
        &self.0
    }
}

/// Whether shares make an allocation.
pub(crate) fn check_shares(basis_points: &[u32]) -> Result<(), AllocationFault> {
    if !(crate::MIN_CATEGORIES..=crate::MAX_CATEGORIES).contains(&basis_points.len()) {
        return Err(AllocationFault::Categories(basis_points.len()));
    }
    let sum: u64 = basis_points.iter().copied().map(u64::from).sum();
    if sum != BASIS_POINTS_PER_PERSON {
        return Err(AllocationFault::Sum { sum });
    }
    Ok(())
}
