//! The order of the tiers, and when each is queried.

use crate::answer::Provenance;

/// The tiers behind memory, in query order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// The published totals in the cache.
    Redis,
    /// The committed totals of all partitions, combined.
    Summary,
    /// All person rows, counted.
    Recount,
}

impl Tier {
    /// All tiers, in query order.
    pub const ALL: [Tier; 3] = [Tier::Redis, Tier::Summary, Tier::Recount];

    /// Returns the tier's label in metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Redis => "redis",
            Self::Summary => "summary",
            Self::Recount => "recount",
        }
    }
}

/// What memory holds for one budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryState {
    /// No answer.
    Empty,
    /// An answer.
    Answer {
        /// What the answer guarantees.
        provenance: Provenance,
        /// Whether the answer was confirmed long enough ago for another recount.
        recount_due: bool,
    },
}

/// Returns whether to query a tier after all earlier tiers had no answer.
///
/// Redis and the committed totals are always queried. A recount reads all person rows and guarantees less than
/// committed totals, so it never replaces those, however old they are, and is repeated only after a pause.
pub fn should_query(tier: Tier, memory: MemoryState) -> bool {
    match (tier, memory) {
        (Tier::Redis | Tier::Summary, _) | (Tier::Recount, MemoryState::Empty) => true,
        (Tier::Recount, MemoryState::Answer { provenance, recount_due }) => {
            provenance == Provenance::Recounted && recount_due
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recount_is_queried_only_without_committed_totals_and_not_at_every_read() {
        let answer = |provenance, recount_due| MemoryState::Answer { provenance, recount_due };
        assert!(should_query(Tier::Recount, MemoryState::Empty));
        assert!(should_query(Tier::Recount, answer(Provenance::Recounted, true)));
        assert!(!should_query(Tier::Recount, answer(Provenance::Recounted, false)));
        assert!(!should_query(Tier::Recount, answer(Provenance::Committed, true)));
        for tier in [Tier::Redis, Tier::Summary] {
            assert!(should_query(tier, answer(Provenance::Committed, false)));
        }
    }
}
