//! How long an answer of an earlier term is kept because the later term does not count all of it yet. Pure: the caller
//! passes the time.
//!
//! Right after a switch the new generation may be a few records behind what readers were shown, and catches up. If it
//! still ends earlier after a while, it never gets there by itself: what was shown was wrong, and its correction is
//! due.

use std::time::Duration;

use schemas::{CombinedTotals, Term};
use tokio::time::Instant;

use super::OfferVerdict;
use crate::answer::Provenance;

/// How long the totals of a later term may lack records that were shown, before they are shown all the same. Longer
/// than a takeover lasts whose owner crashed at the switch: its partition is only late.
pub const TERM_GRACE: Duration = Duration::from_secs(60);

/// Since when the latest term is known.
#[derive(Debug, Default)]
pub struct TermGrace(Option<(Term, Instant)>);

impl TermGrace {
    /// Whether the grace of a term has ended. It begins when the term is seen first.
    fn has_ended(&mut self, term: Term, now: Instant) -> bool {
        match self.0 {
            Some((known, since)) if known.number >= term.number => {
                // An older term is no correction any more.
                known.number == term.number && now.duration_since(since) >= TERM_GRACE
            }
            _ => {
                self.0 = Some((term, now));
                false
            }
        }
    }

    /// Decides what becomes of an offer to which `compare` has given this verdict.
    pub fn decide(
        &mut self,
        verdict: OfferVerdict,
        current: &CombinedTotals,
        offered: (&CombinedTotals, Provenance),
        now: Instant,
    ) -> OfferVerdict {
        let (offered, provenance) = offered;
        let is_correction = matches!(verdict, OfferVerdict::Older | OfferVerdict::Incomparable)
            && provenance == Provenance::Committed
            && offered.term.number > current.term.number;
        if is_correction && self.has_ended(offered.term, now) {
            return OfferVerdict::Newer;
        }
        verdict
    }
}

#[cfg(test)]
mod tests {
    use schemas::{Generation, LogNumber, Position};

    use super::super::compare;
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

    #[test]
    fn a_later_term_that_ends_earlier_is_shown_after_the_grace_and_an_earlier_one_never() {
        let (mut grace, began) = (TermGrace::default(), Instant::now());
        let shown = totals(1, &[5, 5]);
        let mut verdict = |offered: &CombinedTotals, provenance, after: Duration| {
            let compared = compare((&shown, Provenance::Committed), (offered, provenance));
            grace.decide(compared, &shown, (offered, provenance), began + after)
        };
        let committed = Provenance::Committed;
        let (none, late) = (Duration::ZERO, TERM_GRACE - Duration::from_millis(1));
        assert_eq!(verdict(&totals(2, &[5, 4]), committed, none), OfferVerdict::Older);
        assert_eq!(verdict(&totals(2, &[9, 4]), committed, late), OfferVerdict::Incomparable);
        assert_eq!(verdict(&totals(2, &[5, 5]), committed, late), OfferVerdict::Newer);
        assert_eq!(verdict(&totals(2, &[5, 4]), committed, TERM_GRACE), OfferVerdict::Newer);
        let recounted = Provenance::Recounted;
        assert_ne!(verdict(&totals(2, &[9, 9]), recounted, TERM_GRACE), OfferVerdict::Newer);
        assert_eq!(verdict(&totals(1, &[5, 4]), committed, TERM_GRACE), OfferVerdict::Older);
        // Each term has a grace of its own, and a term in between none.
        assert_eq!(verdict(&totals(3, &[5, 4]), committed, TERM_GRACE), OfferVerdict::Older);
        assert_eq!(verdict(&totals(2, &[5, 4]), committed, 2 * TERM_GRACE), OfferVerdict::Older);
        assert_eq!(verdict(&totals(3, &[5, 4]), committed, 2 * TERM_GRACE), OfferVerdict::Newer);
    }
}
