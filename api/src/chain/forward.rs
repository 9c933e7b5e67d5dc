//! Whether an answer may replace the one that readers were shown last: only forward.

use schemas::CombinedTotals;

use crate::answer::Provenance;

/// What an answer is to the one in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Newer: it takes its place.
    Forward,
    /// The same: the one in memory is confirmed.
    Same,
    /// Older: the one in memory counts all that it counts, and stays.
    Behind,
    /// Incomparable, or less sure, or of a derivation before: the one in memory stays.
    Apart,
}

impl Verdict {
    /// Whether it is in memory now.
    pub fn is_held(self) -> bool {
        matches!(self, Self::Forward | Self::Same)
    }

    /// Whether memory surely counts all that it counts.
    pub fn is_covered(self) -> bool {
        self.is_held() || self == Self::Behind
    }
}

/// Compares what was found with what is held.
pub fn judge(held: (&CombinedTotals, Provenance), found: (&CombinedTotals, Provenance)) -> Verdict {
    let ((held, held_provenance), (found, found_provenance)) = (held, found);
    let less_sure =
        found_provenance == Provenance::Recounted && held_provenance == Provenance::Committed;
    if less_sure || !found.includes(held) {
        let behind = held_provenance == Provenance::Committed
            && found_provenance == Provenance::Committed
            && held.reaches(found);
        return if behind { Verdict::Behind } else { Verdict::Apart };
    }
    let same_positions = found.term == held.term && found.positions == held.positions;
    let same = match (held_provenance, found_provenance) {
        // Committed totals are a function of their positions.
        (Provenance::Committed, Provenance::Committed) => same_positions,
        _ => same_positions && found_provenance == held_provenance && found == held,
    };
    if same { Verdict::Same } else { Verdict::Forward }
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
        }
    }

    fn any_found() -> impl Strategy<Value = (CombinedTotals, Provenance)> {
        let provenance = prop_oneof![Just(Provenance::Committed), Just(Provenance::Recounted)];
        (1..3_u32, prop::collection::vec(0..4_u64, 3), provenance)
            .prop_map(|(term, positions, provenance)| (totals(term, &positions), provenance))
    }

    proptest! {
        /// Answers come in any order, from any tier; a reader looks after each.
        #[test]
        fn whatever_arrives_a_reader_never_sees_a_position_or_version_go_back(
            arriving in prop::collection::vec(any_found(), 1..40),
        ) {
            let mut held: Option<(CombinedTotals, Provenance)> = None;
            for found in arriving {
                let before = held.clone();
                let verdict = held.as_ref().map_or(Verdict::Forward, |(totals, provenance)| {
                    judge((totals, *provenance), (&found.0, found.1))
                });
                if verdict == Verdict::Forward {
                    held = Some(found);
                }
                if let (Some((old, was)), Some((new, is))) = (before, &held) {
                    prop_assert!(new.includes(&old));
                    prop_assert!(AggregateVersion::of(new) >= AggregateVersion::of(&old));
                    prop_assert!(was == Provenance::Recounted || *is == Provenance::Committed);
                }
            }
        }
    }

    #[test]
    fn what_is_ahead_in_one_partition_and_behind_in_another_stays_outside() {
        let held = totals(1, &[5, 5]);
        let found = totals(1, &[9, 4]);
        let committed = Provenance::Committed;
        assert_eq!(judge((&held, committed), (&found, committed)), Verdict::Apart);
        let rebuilt = totals(2, &[1, 1]);
        assert_eq!(judge((&held, committed), (&rebuilt, committed)), Verdict::Behind);
        let caught_up = totals(2, &[5, 5]);
        assert_eq!(judge((&held, committed), (&caught_up, committed)), Verdict::Forward);
        assert_eq!(judge((&held, committed), (&held, committed)), Verdict::Same);
    }

    #[test]
    fn only_what_is_surely_counted_in_memory_is_behind() {
        let held = totals(1, &[5, 5]);
        let (committed, recounted) = (Provenance::Committed, Provenance::Recounted);
        let judged = |was, found: &CombinedTotals, is| judge((&held, was), (found, is));
        let older = totals(1, &[5, 4]);
        assert_eq!(judged(committed, &older, committed), Verdict::Behind);
        assert_eq!(judged(recounted, &older, committed), Verdict::Apart);
        assert_eq!(judged(committed, &older, recounted), Verdict::Apart);
        assert_eq!(judged(committed, &totals(0, &[5, 5]), committed), Verdict::Behind);
        assert_eq!(judged(committed, &totals(2, &[9, 4]), committed), Verdict::Apart);
    }
}
