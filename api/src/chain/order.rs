//! Which tier comes next.

use crate::answer::Provenance;

/// The tiers behind memory, in the order in which they are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// The copy in the cache.
    Redis,
    /// The committed totals of every partition, added up.
    Summary,
    /// Everyone's rows, counted.
    Recount,
}

impl Tier {
    /// All of them, in order.
    pub const ALL: [Tier; 3] = [Tier::Redis, Tier::Summary, Tier::Recount];

    /// Its name in metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Redis => "redis",
            Self::Summary => "summary",
            Self::Recount => "recount",
        }
    }
}

/// What memory holds for a budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// Nothing.
    Nothing,
    /// An answer of this provenance. `rested` says that it was last confirmed long enough ago for an expensive tier
    /// to be asked again.
    Answer {
        /// How much it can promise.
        provenance: Provenance,
        /// Whether the expensive tier's rest is over.
        rested: bool,
    },
}

/// Whether a tier's turn has come once all before it had nothing: always, but for the recount. That one reads
/// everyone's row, and what it finds promises less than committed totals do; so it never replaces those, however old
/// they are, and repeats itself only after a rest.
pub fn is_worth_asking(tier: Tier, held: Held) -> bool {
    match (tier, held) {
        (Tier::Redis | Tier::Summary, _) | (Tier::Recount, Held::Nothing) => true,
        (Tier::Recount, Held::Answer { provenance, rested }) => {
            provenance == Provenance::Recounted && rested
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_recount_is_asked_only_where_nothing_better_is_known_and_not_at_every_read() {
        let held = |provenance, rested| Held::Answer { provenance, rested };
        assert!(is_worth_asking(Tier::Recount, Held::Nothing));
        assert!(is_worth_asking(Tier::Recount, held(Provenance::Recounted, true)));
        assert!(!is_worth_asking(Tier::Recount, held(Provenance::Recounted, false)));
        assert!(!is_worth_asking(Tier::Recount, held(Provenance::Committed, true)));
        for tier in [Tier::Redis, Tier::Summary] {
            assert!(is_worth_asking(tier, held(Provenance::Committed, false)));
        }
    }
}
