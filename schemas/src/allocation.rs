//! One person's allocation: the share of each category of a budget, in basis points.

use crate::{MAX_CATEGORIES, MIN_CATEGORIES};

/// Basis points of one allocation: 100 %.
pub const BASIS_POINTS_PER_PERSON: u64 = 10_000;

/// Why shares are not a valid allocation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AllocationFault {
    /// The shares do not add up to 10,000.
    #[error("the shares add up to {sum} basis points instead of 10000")]
    Sum {
        /// Sum of the shares.
        sum: u64,
    },
    /// The number of shares is not a valid number of categories.
    #[error("{0} categories, where a budget has 2 to 64")]
    Categories(usize),
}

/// Shares of a budget's categories, in the budget's order. They add up to exactly 10,000 basis points.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allocation(Box<[u16]>);

impl Allocation {
    /// Checks shares.
    ///
    /// # Errors
    /// When they do not add up to 10,000, or their number is not a valid number of categories.
    pub fn new(basis_points: &[u32]) -> Result<Self, AllocationFault> {
        check_shares(basis_points)?;
        // Each share fits into 16 bits: it is at most the sum, 10,000.
        Ok(Self(basis_points.iter().map(|share| *share as u16).collect()))
    }

    /// Shares in basis points, in the budget's order.
    pub fn basis_points(&self) -> &[u16] {
        &self.0
    }
}

/// Checks that shares form a valid allocation.
pub(crate) fn check_shares(basis_points: &[u32]) -> Result<(), AllocationFault> {
    if !(MIN_CATEGORIES..=MAX_CATEGORIES).contains(&basis_points.len()) {
        return Err(AllocationFault::Categories(basis_points.len()));
    }
    let sum: u64 = basis_points.iter().copied().map(u64::from).sum();
    if sum != BASIS_POINTS_PER_PERSON {
        return Err(AllocationFault::Sum { sum });
    }
    Ok(())
}
