//! Versions of published totals, derived from term and positions: equal versions mean equal content.

use std::fmt;

use crate::CombinedTotals;
use crate::fnv::fnv1a;

/// The version of a budget's totals: term, sum of positions, and digest of positions. Its text has a fixed width, and
/// grows in byte order whenever a position advances.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct AggregateVersion {
    term: u32,
    positions_sum: u64,
    positions_digest: u64,
}

impl AggregateVersion {
    /// Computes the version of totals.
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
