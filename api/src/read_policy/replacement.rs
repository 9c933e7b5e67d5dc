//! Decides whether an answer may replace the one in memory. Answers never go backwards within a term; for the first
//! answer of a later term see `term_grace`.

use schemas::CombinedTotals;

use crate::answer::Provenance;

/// How offered totals compare with the totals in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OfferVerdict {
    /// Newer: replaces the totals in memory.
    Newer,
    /// Equal: confirms the totals in memory.
    Same,
    /// Older: memory counts everything that the offer counts, and stays.
    Older,
    /// Neither includes the other, or the offer is a recount or of an earlier term: memory stays.
    Incomparable,
}

impl OfferVerdict {
    /// Returns whether memory holds the offered totals now.
    pub fn is_in_memory(self) -> bool {
        matches!(self, Self::Newer | Self::Same)
    }

    /// Returns whether memory is certain to count everything that the offer counts.
    pub fn is_included(self) -> bool {
        self.is_in_memory() || self == Self::Older
    }
}

/// Compares offered totals with the totals in memory.
pub fn compare(
    current: (&CombinedTotals, Provenance),
    offered: (&CombinedTotals, Provenance),
) -> OfferVerdict {
    let ((current, current_provenance), (offered, offered_provenance)) = (current, offered);
    let less_certain =
        offered_provenance == Provenance::Recounted && current_provenance == Provenance::Committed;
    if less_certain || !offered.includes(current) {
        let older = current_provenance == Provenance::Committed
            && offered_provenance == Provenance::Committed
            && current.includes_positions_of(offered);
        return if older { OfferVerdict::Older } else { OfferVerdict::Incomparable };
    }
    let same_positions = offered.term == current.term
        && offered.positions == current.positions
        // An earlier release does not know which partitions are closed, or who is annulled.
        && offered.closed_partitions <= current.closed_partitions
        && offered.annulled <= current.annulled;
    let same = match (current_provenance, offered_provenance) {
        // Committed totals are a function of their positions.
        (Provenance::Committed, Provenance::Committed) => same_positions,
        _ => same_positions && offered_provenance == current_provenance && offered == current,
    };
    if same { OfferVerdict::Same } else { OfferVerdict::Newer }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use schemas::{AggregateVersion, Generation, LogNumber, Position, Term};

    use super::*;

    fn totals(term: u32, positions: &[u64]) -> CombinedTotals {
        CombinedTotals {
            term: Term { number: term, generation: Generation(term), log: LogNumber::FIRST },
            positions: positions.iter().copied().map(Position).collect(),
            people: 0,
            updated_at_ms: 0,
            categories: Vec::new(),
            closed_partitions: 0,
            annulled: 0,
        }
    }

    fn any_offer() -> impl Strategy<Value = (CombinedTotals, Provenance)> {
        let provenance = prop_oneof![Just(Provenance::Committed), Just(Provenance::Recounted)];
        (1..3_u32, prop::collection::vec(0..4_u64, 3), provenance)
            .prop_map(|(term, positions, provenance)| (totals(term, &positions), provenance))
    }

    proptest! {
        /// Answers arrive in any order, from any tier; a reader reads after each.
        #[test]
        fn positions_and_versions_never_go_back_for_a_reader_under_any_arrival_order(
            arriving in prop::collection::vec(any_offer(), 1..40),
        ) {
            let mut current: Option<(CombinedTotals, Provenance)> = None;
            for offered in arriving {
                let before = current.clone();
                let verdict = current.as_ref().map_or(OfferVerdict::Newer, |(totals, provenance)| {
                    compare((totals, *provenance), (&offered.0, offered.1))
                });
                if verdict == OfferVerdict::Newer {
                    current = Some(offered);
                }
                if let (Some((old, was)), Some((new, is))) = (before, &current) {
                    prop_assert!(new.includes(&old));
                    prop_assert!(AggregateVersion::of(new) >= AggregateVersion::of(&old));
                    prop_assert!(was == Provenance::Recounted || *is == Provenance::Committed);
                }
            }
        }
    }

    #[test]
    fn totals_ahead_in_one_partition_and_behind_in_another_are_incomparable() {
        let current = totals(1, &[5, 5]);
        let offered = totals(1, &[9, 4]);
        let committed = Provenance::Committed;
        assert_eq!(
            compare((&current, committed), (&offered, committed)),
            OfferVerdict::Incomparable
        );
        let rebuilt = totals(2, &[1, 1]);
        assert_eq!(compare((&current, committed), (&rebuilt, committed)), OfferVerdict::Older);
        let caught_up = totals(2, &[5, 5]);
        assert_eq!(compare((&current, committed), (&caught_up, committed)), OfferVerdict::Newer);
        assert_eq!(compare((&current, committed), (&current, committed)), OfferVerdict::Same);
    }

    #[test]
    fn an_offer_is_older_only_if_memory_is_certain_to_count_all_of_it() {
        let current = totals(1, &[5, 5]);
        let (committed, recounted) = (Provenance::Committed, Provenance::Recounted);
        let compared = |was, offered: &CombinedTotals, is| compare((&current, was), (offered, is));
        let older = totals(1, &[5, 4]);
        assert_eq!(compared(committed, &older, committed), OfferVerdict::Older);
        assert_eq!(compared(recounted, &older, committed), OfferVerdict::Incomparable);
        assert_eq!(compared(committed, &older, recounted), OfferVerdict::Incomparable);
        assert_eq!(compared(committed, &totals(0, &[5, 5]), committed), OfferVerdict::Older);
        assert_eq!(compared(committed, &totals(2, &[9, 4]), committed), OfferVerdict::Incomparable);
    }
}
