//! The version of an answer: made from what it reflects, so that equal versions mean equal content.

use std::fmt;

use crate::CombinedTotals;
use crate::fnv::fnv1a;

/// A version: term, sum of positions, and a digest of them, at fixed width, so that its text grows in byte
/// order whenever a position moves forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct AggregateVersion {
    term: u32,
    positions_sum: u64,
    positions_digest: u64,
}

impl AggregateVersion {
    /// The version of an answer.
    pub fn of(totals: &CombinedTotals) -> Self {
        Self {
            term: totals.term.number,
            positions_sum: totals.positions.iter().map(|position| position.0).sum(),
            positions_digest: fnv1a(
                totals.positions.iter().flat_map(|position| position.0.to_le_bytes()),
            ),
        }
    }
}

impl fmt::Display for AggregateVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}-{:016x}-{:016x}", self.term, self.positions_sum, self.positions_digest)
    }
}
