//! From checked submissions to records in the log, each at most once for its name, and to what became of each.
//!
//! What is decided about a batch before anything is asked is in [`Plan`]; the rest is the order of the calls: look the
//! names up, append, remember the receipts.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::Instant;

use schemas::{Action, PersonKey, Receipt, RecordEncoder, Submission, SubmissionId};
use sha2::{Digest, Sha256};
use storage::idempotency::{Attempt, Begun};
use storage::log::{AppendError, NewRecord};

use crate::service::Ingest;

/// A checked submission, and whether its client named it.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    pub submission: Submission,
    /// A name that we made up nobody can repeat, so it is not looked up.
    pub named: bool,
}

/// What became of a candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It is in the log.
    Accepted {
        /// Where.
        receipt: Receipt,
        /// Whether it was there before, and this is its first answer again.
        repeated: bool,
    },
    /// The same one is being handled.
    InFlight,
    /// Its name belongs to another one.
    Reused,
    /// It is not in the log.
    Unavailable,
    /// It may be in the log.
    Unknown,
}

impl Outcome {
    /// The outcome of a candidate that says again what one before it in the same batch says.
    fn again(self) -> Self {
        match self {
            Self::Accepted { receipt, .. } => Self::Accepted { receipt, repeated: true },
            other => other,
        }
    }

    fn receipt(self) -> Option<Receipt> {
        match self {
            Self::Accepted { receipt, .. } => Some(receipt),
            _ => None,
        }
    }
}

/// What to do with one candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Append it.
    Append,
    /// Look its name up first: this one of the attempts.
    LookUp(usize),
    /// Answer as this earlier candidate is answered.
    SameAs(usize),
    /// An earlier candidate has its name and says something else.
    Reused,
}

#[derive(Debug, Default)]
struct Plan {
    steps: Vec<Step>,
    attempts: Vec<Attempt>,
}

impl Plan {
    fn of(candidates: &[Candidate]) -> Self {
        let mut plan = Self { steps: Vec::with_capacity(candidates.len()), attempts: Vec::new() };
        // For each name its first candidate and what that says.
        let mut names: HashMap<SubmissionId, (usize, u64)> = HashMap::new();
        for (place, candidate) in candidates.iter().enumerate() {
            if !candidate.named {
                plan.steps.push(Step::Append);
                continue;
            }
            let submission = &candidate.submission;
            let digest = digest(&submission.person, &submission.action);
            plan.steps.push(match names.entry(submission.id) {
                Entry::Occupied(first) if first.get().1 == digest => Step::SameAs(first.get().0),
                Entry::Occupied(_) => Step::Reused,
                Entry::Vacant(free) => {
                    free.insert((place, digest));
                    plan.attempts.push(Attempt {
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

/// What a submission says and who says it, in 64 bits that are the same on every machine and in every release.
fn digest(person: &PersonKey, action: &Action) -> u64 {
    let mut hash = Sha256::new();
    hash.update(person.as_bytes());
    if let Action::Allocate(allocation) = action {
        for share in allocation.basis_points() {
            hash.update(share.to_be_bytes());
        }
    }
    let whole: [u8; 32] = hash.finalize().into();
    whole.iter().take(8).fold(0, |digest, byte| digest << 8 | u64::from(*byte))
}

impl Ingest {
    /// Brings candidates into the log and says what became of each, in order.
    pub async fn append_each_once(&self, candidates: Vec<Candidate>) -> Vec<Outcome> {
        let plan = Plan::of(&candidates);
        let begun = match plan.attempts.as_slice() {
            [] => Vec::new(),
            attempts => self.idempotency.begin(attempts).await,
        };

        // Where nothing better is known below, nothing was appended.
        let mut outcomes = vec![Outcome::Unavailable; candidates.len()];
        let mut encoder = RecordEncoder::default();
        let mut records = Vec::with_capacity(candidates.len());
        let mut appended: Vec<usize> = Vec::with_capacity(candidates.len());
        for (place, ((candidate, step), outcome)) in
            candidates.iter().zip(&plan.steps).zip(&mut outcomes).enumerate()
        {
            let seen = match step {
                Step::Append => Begun::First,
                Step::LookUp(attempt) => begun.get(*attempt).copied().unwrap_or(Begun::First),
                Step::SameAs(_) => continue,
                Step::Reused => Begun::Reused,
            };
            match seen {
                Begun::First => {
                    appended.push(place);
                    records.push(record(&candidate.submission, &mut encoder));
                }
                Begun::Repeat(receipt) => *outcome = Outcome::Accepted { receipt, repeated: true },
                Begun::InFlight => *outcome = Outcome::InFlight,
                Begun::Reused => *outcome = Outcome::Reused,
            }
        }

        for (place, result) in appended.iter().zip(self.append(records).await) {
            if let Some(outcome) = outcomes.get_mut(*place) {
                *outcome = match result {
                    Ok(receipt) => Outcome::Accepted { receipt, repeated: false },
                    Err(AppendError::Unavailable(_) | AppendError::Sealed) => Outcome::Unavailable,
                    Err(AppendError::Unknown(_)) => Outcome::Unknown,
                };
            }
        }
        self.finish(&plan, &begun, &outcomes).await;

        for (place, step) in plan.steps.iter().enumerate() {
            if let Step::SameAs(first) = step
                && let Some(first) = outcomes.get(*first).copied()
                && let Some(outcome) = outcomes.get_mut(place)
            {
                *outcome = first.again();
            }
        }
        outcomes
    }

    /// One answer for each record.
    async fn append(&self, records: Vec<NewRecord>) -> Vec<Result<Receipt, AppendError>> {
        if records.is_empty() {
            return Vec::new();
        }
        let (count, started) = (records.len(), Instant::now());
        let mut results = self.log.append(records).await;
        self.metrics.appended_since(started);
        // A log that says less than it was asked leaves the rest unknown.
        results.resize(count, Err(AppendError::Unknown("no answer".to_owned())));
        results
    }

    /// Remembers what became of the attempts that we marked as in flight.
    async fn finish(&self, plan: &Plan, begun: &[Begun], outcomes: &[Outcome]) {
        let finished: Vec<(Attempt, Option<Receipt>)> = plan
            .steps
            .iter()
            .zip(outcomes)
            .filter_map(|(step, outcome)| match step {
                Step::LookUp(attempt) if begun.get(*attempt) == Some(&Begun::First) => {
                    Some((plan.attempts.get(*attempt)?.clone(), outcome.receipt()))
                }
                _ => None,
            })
            .collect();
        if !finished.is_empty() {
            self.idempotency.finish(&finished).await;
        }
    }
}

fn record(submission: &Submission, encoder: &mut RecordEncoder) -> NewRecord {
    NewRecord { key: submission.person, value: encoder.encode(submission) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use schemas::{Allocation, BudgetId};
    use uuid::Uuid;

    fn candidate(id: u128, person: u8, shares: &[u32], named: bool) -> Candidate {
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
        Candidate { submission, named }
    }

    #[test]
    fn a_name_is_looked_up_once_and_only_if_a_client_gave_it() {
        let plan = Plan::of(&[
            candidate(1, 1, &[10_000, 0], false),
            candidate(2, 1, &[10_000, 0], true),
            candidate(2, 1, &[10_000, 0], true),
            candidate(2, 1, &[0, 10_000], true),
            candidate(2, 2, &[10_000, 0], true),
            candidate(2, 1, &[], true),
            candidate(3, 1, &[10_000, 0], true),
        ]);
        let names: Vec<u128> =
            plan.attempts.iter().map(|attempt| attempt.submission.0.as_u128()).collect();
        assert_eq!(names, [2, 3]);
        assert_eq!(
            plan.steps,
            [
                Step::Append,
                Step::LookUp(0),
                Step::SameAs(1),
                Step::Reused,
                Step::Reused,
                Step::Reused,
                Step::LookUp(1),
            ]
        );
    }

    /// The digest is remembered by other processes, of other releases too.
    #[test]
    fn the_digest_never_changes() {
        let submission = candidate(1, 7, &[2_500, 7_500], true).submission;
        // The first 8 bytes of SHA-256 of sixteen bytes 07, then 09c4 1d4c.
        assert_eq!(digest(&submission.person, &submission.action), 0xa4b1_9ffe_39d7_b463);
    }
}
