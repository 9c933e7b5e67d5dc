//! Decides what to do with each submission of a batch, before any I/O.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use schemas::{PersonKey, SubmissionId};
use storage::idempotency::{BeginOutcome, IdempotentSubmission};

use crate::pending::PendingSubmission;

/// What to do with one submission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Append it.
    Append,
    /// Look its id up first. The index is into [`Plan::attempts`].
    LookUp(usize),
    /// Copy the outcome of the submission at this index: id and content are the same.
    DuplicateOf(usize),
    /// Reject it: the same id of the same person appeared earlier in this batch with different content.
    IdReused,
}

impl Step {
    /// Returns what is known of the submission's id. `None` if an earlier submission of the batch decides.
    pub fn begun(&self, begun: &[BeginOutcome]) -> Option<BeginOutcome> {
        match self {
            Self::Append => Some(BeginOutcome::First),
            Self::LookUp(attempt) => {
                Some(begun.get(*attempt).copied().unwrap_or(BeginOutcome::First))
            }
            Self::DuplicateOf(_) => None,
            Self::IdReused => Some(BeginOutcome::Reused),
        }
    }
}

/// The steps of one batch.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// One step for each submission, in order.
    pub steps: Vec<Step>,
    /// The ids to look up: client-supplied ids, each once.
    pub attempts: Vec<IdempotentSubmission>,
}

impl Plan {
    pub fn new(submissions: &[PendingSubmission]) -> Self {
        let mut plan = Self { steps: Vec::with_capacity(submissions.len()), attempts: Vec::new() };
        // For each client-supplied id of a person the index and the content digest of its first submission.
        let mut first_by_id: HashMap<(PersonKey, SubmissionId), (usize, u64)> = HashMap::new();
        for (index, pending) in submissions.iter().enumerate() {
            if !pending.client_supplied_id {
                plan.steps.push(Step::Append);
                continue;
            }
            let attempt = pending.attempt();
            let digest = attempt.digest;
            plan.steps.push(match first_by_id.entry((attempt.person, attempt.submission)) {
                Entry::Occupied(first) if first.get().1 == digest => {
                    Step::DuplicateOf(first.get().0)
                }
                Entry::Occupied(_) => Step::IdReused,
                Entry::Vacant(vacant) => {
                    vacant.insert((index, digest));
                    plan.attempts.push(attempt);
                    Step::LookUp(plan.attempts.len() - 1)
                }
            });
        }
        plan
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use schemas::{Action, Allocation, BudgetId, PersonKey, PublishStep, Submission};
    use uuid::Uuid;

    fn pending(
        id: u128,
        person: u8,
        shares: &[u32],
        client_supplied_id: bool,
    ) -> PendingSubmission {
        let action = match shares {
            [] => Action::Withdraw,
            shares => Action::Allocate(Allocation::new(shares).unwrap()),
        };
        let submission = Submission {
            budget: BudgetId::parse("taxes").unwrap(),
            person: PersonKey::from_bytes([person; 16]),
            id: SubmissionId(Uuid::from_u128(id)),
            accepted_at_ms: 0,
            action,
        };
        PendingSubmission {
            id: submission.id,
            submission,
            client_supplied_id,
            publish_step: PublishStep::ONE,
            max_people: None,
            origin: None,
        }
    }

    #[test]
    fn only_client_supplied_ids_are_looked_up_and_each_only_once_for_a_person() {
        let plan = Plan::new(&[
            pending(1, 1, &[10_000, 0], false),
            pending(2, 1, &[10_000, 0], true),
            pending(2, 1, &[10_000, 0], true),
            pending(2, 1, &[0, 10_000], true),
            pending(2, 2, &[10_000, 0], true),
            pending(2, 1, &[], true),
            pending(3, 1, &[10_000, 0], true),
        ]);
        let ids: Vec<u128> =
            plan.attempts.iter().map(|attempt| attempt.submission.0.as_u128()).collect();
        assert_eq!(ids, [2, 2, 3]);
        assert_eq!(
            plan.steps,
            [
                Step::Append,
                Step::LookUp(0),
                Step::DuplicateOf(1),
                Step::IdReused,
                // Another person's.
                Step::LookUp(1),
                Step::IdReused,
                Step::LookUp(2),
            ]
        );
    }
}
