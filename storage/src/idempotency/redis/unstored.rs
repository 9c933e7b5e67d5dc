//! Accepted ids that Redis has not taken, until it takes them.

use std::collections::VecDeque;

use parking_lot::Mutex;

use crate::idempotency::{AttemptOutcome, IdempotentSubmission};

/// Maximum number of outcomes, about 150 bytes each.
const MAX_OUTCOMES: usize = 20_000;

/// Maximum number of outcomes that are stored with the next ones.
const MAX_TAKEN: usize = 500;

type Outcome = (IdempotentSubmission, AttemptOutcome);

/// Outcomes that are stored with the next ones.
#[derive(Default)]
pub(super) struct Unstored(Mutex<VecDeque<Outcome>>);

impl Unstored {
    /// Takes the oldest outcomes, as many as one more call stores in its time.
    pub fn take(&self) -> Vec<Outcome> {
        let mut kept = self.0.lock();
        let taken = kept.len().min(MAX_TAKEN);
        kept.drain(..taken).collect()
    }

    /// Keeps those outcomes without which an id would be taken for new. Returns whether one had to be dropped.
    pub fn keep(&self, outcomes: impl Iterator<Item = Outcome>) -> bool {
        let mut kept = self.0.lock();
        kept.extend(outcomes.filter(|(_, outcome)| *outcome != AttemptOutcome::NotAppended));
        let surplus = kept.len().saturating_sub(MAX_OUTCOMES);
        kept.drain(..surplus);
        surplus > 0
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use schemas::{BudgetId, PersonKey, SubmissionId};

    use super::*;

    fn outcome(id: u128, outcome: AttemptOutcome) -> Outcome {
        let attempt = IdempotentSubmission {
            budget: BudgetId::parse("taxes").unwrap(),
            person: PersonKey::from_bytes([1; 16]),
            submission: SubmissionId(uuid::Uuid::from_u128(id)),
            digest: 7,
        };
        (attempt, outcome)
    }

    #[test]
    fn accepted_and_unknown_outcomes_are_kept_in_order_up_to_a_bound() {
        let unstored = Unstored::default();
        let first = outcome(1, AttemptOutcome::Unknown);
        let refused = outcome(2, AttemptOutcome::NotAppended);
        assert!(!unstored.keep([first.clone(), refused].into_iter()));
        assert!(unstored.take() == [first]);
        assert!(unstored.take().is_empty());
        let ids = 0..=MAX_OUTCOMES as u128;
        assert!(unstored.keep(ids.map(|id| outcome(id, AttemptOutcome::Unknown))));
        let kept = unstored.take();
        assert_eq!(kept.len(), MAX_TAKEN);
        assert!(kept.first() == Some(&outcome(1, AttemptOutcome::Unknown)));
        assert_eq!(unstored.0.lock().len(), MAX_OUTCOMES - MAX_TAKEN);
    }
}
