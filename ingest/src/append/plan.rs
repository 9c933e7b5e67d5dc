//! Decides what to do with each submission of a batch, before any I/O.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use schemas::{Action, PersonKey, SubmissionId};
use sha2::{Digest, Sha256};
use storage::idempotency::IdempotentSubmission;

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
    /// Reject it: the same id appeared earlier in this batch with different content.
    IdReused,
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
        // For each client-supplied id the index and the content digest of its first submission.
        let mut first_by_id: HashMap<SubmissionId, (usize, u64)> = HashMap::new();
        for (index, pending) in submissions.iter().enumerate() {
            if !pending.client_supplied_id {
                plan.steps.push(Step::Append);
                continue;
            }
            let submission = &pending.submission;
            let digest = content_digest(&submission.person, &submission.action);
            plan.steps.push(match first_by_id.entry(submission.id) {
                Entry::Occupied(first) if first.get().1 == digest => {
                    Step::DuplicateOf(first.get().0)
                }
                Entry::Occupied(_) => Step::IdReused,
                Entry::Vacant(vacant) => {
                    vacant.insert((index, digest));
                    plan.attempts.push(IdempotentSubmission {
                        budget: submission.budget.clone(),
                        submission: submission.id,
                        digest,
                    });
                    Step::LookUp(plan.attempts.len() - 1)
                }
            });
        }
        plan
    }
}

/// Hashes person and content to 64 bits. Stored by other processes and releases: it must never change.
fn content_digest(person: &PersonKey, action: &Action) -> u64 {
    let mut hash = Sha256::new();
    hash.update(person.as_bytes());
    if let Action::Allocate(allocation) = action {
        for share in allocation.basis_points() {
            hash.update(share.to_be_bytes());
        }
    }
    let sha256: [u8; 32] = hash.finalize().into();
    sha256.iter().take(8).fold(0, |digest, byte| digest << 8 | u64::from(*byte))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use schemas::{Allocation, BudgetId, Submission};
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
        PendingSubmission { submission, client_supplied_id }
    }

    #[test]
    fn only_client_supplied_ids_are_looked_up_and_each_only_once() {
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
        assert_eq!(ids, [2, 3]);
        assert_eq!(
            plan.steps,
            [
                Step::Append,
                Step::LookUp(0),
                Step::DuplicateOf(1),
                Step::IdReused,
                Step::IdReused,
                Step::IdReused,
                Step::LookUp(1),
            ]
        );
    }

    #[test]
    fn content_digest_is_stable_across_releases() {
        let submission = pending(1, 7, &[2_500, 7_500], true).submission;
        // The first 8 bytes of SHA-256 of sixteen bytes 07, then 09c4 1d4c.
        let digest = content_digest(&submission.person, &submission.action);
        assert_eq!(digest, 0xa4b1_9ffe_39d7_b463);
    }
}
