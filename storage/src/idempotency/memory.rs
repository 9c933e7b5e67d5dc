//! Submission ids in process memory, bounded in number and age. A restart loses them.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use moka::Expiry;
use moka::ops::compute::Op;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use schemas::{BudgetId, PersonKey, RecordAddress, SubmissionId};

use super::{AttemptOutcome, BeginOutcome, Idempotency, IdempotentSubmission};

/// Bounds the number and age of stored attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Maximum number of attempts; the least recently used are evicted.
    pub attempts: u64,
    /// How long an attempt stays in flight if it is never finished, besides the steps around its append.
    pub in_flight: Duration,
    /// How long a receipt is stored, or the content of an attempt whose outcome is unknown.
    pub receipts: Duration,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            attempts: 1_000_000,
            in_flight: Duration::from_secs(10),
            receipts: Duration::from_secs(24 * 60 * 60),
        }
    }
}

/// Submission ids in process memory.
pub struct MemoryIdempotency {
    attempts: Cache<(BudgetId, PersonKey, SubmissionId), StoredAttempt>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct StoredAttempt {
    digest: u64,
    state: AttemptState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AttemptState {
    InFlight {
        /// How long the steps around the append may take.
        around_append: Duration,
    },
    /// It may be in the log.
    Unknown,
    Accepted(RecordAddress),
}

impl StoredAttempt {
    fn new(attempt: &IdempotentSubmission, state: AttemptState) -> Self {
        Self { digest: attempt.digest, state }
    }

    /// Whether it is the mark of an attempt, or of a concurrent one with the same content.
    fn is_mark_of(&self, attempt: &IdempotentSubmission) -> bool {
        self.digest == attempt.digest && matches!(self.state, AttemptState::InFlight { .. })
    }

    /// Whether it has the content of an attempt, and no receipt.
    fn is_unaccepted(&self, attempt: &IdempotentSubmission) -> bool {
        self.digest == attempt.digest && !matches!(self.state, AttemptState::Accepted(_))
    }
}

impl MemoryIdempotency {
    /// Creates an empty store.
    pub fn new(retention: Retention) -> Self {
        let attempts = Cache::builder()
            .max_capacity(retention.attempts)
            // The default policy prefers frequently read entries to new ones, and would reject a new attempt.
            .eviction_policy(EvictionPolicy::lru())
            .expire_after(retention)
            .build();
        Self { attempts }
    }

    fn begin_one(&self, attempt: &IdempotentSubmission, around_append: Duration) -> BeginOutcome {
        let in_flight = AttemptState::InFlight { around_append };
        let mut outcome = BeginOutcome::First;
        // Moka serializes these calls per key: of two concurrent attempts, one is the first.
        self.attempts.entry(key(attempt)).and_compute_with(|entry| match entry {
            None => Op::Put(StoredAttempt::new(attempt, in_flight)),
            Some(entry) => {
                let StoredAttempt { digest, state } = *entry.value();
                outcome = match state {
                    _ if digest != attempt.digest => BeginOutcome::Reused,
                    AttemptState::Accepted(receipt) => BeginOutcome::Repeat(receipt),
                    // Not marked as in flight: the mark would expire, and the content with it.
                    AttemptState::Unknown => BeginOutcome::First,
                    AttemptState::InFlight { .. } => BeginOutcome::InFlight,
                };
                Op::Nop
            }
        });
        outcome
    }

    fn finish_one(&self, attempt: &IdempotentSubmission, outcome: AttemptOutcome) {
        let finished = |state| Op::Put(StoredAttempt::new(attempt, state));
        self.attempts.entry(key(attempt)).and_compute_with(|entry| {
            let known = entry.map(|entry| *entry.value());
            match outcome {
                AttemptOutcome::Accepted(receipt) => finished(AttemptState::Accepted(receipt)),
                // The receipt of a concurrent attempt must stay, and other content.
                AttemptOutcome::Unknown
                    if known.is_none_or(|known| known.is_unaccepted(attempt)) =>
                {
                    finished(AttemptState::Unknown)
                }
                // An earlier attempt that may be in the log stays.
                AttemptOutcome::NotAppended
                    if known.is_some_and(|known| known.is_mark_of(attempt)) =>
                {
                    Op::Remove
                }
                AttemptOutcome::Unknown | AttemptOutcome::NotAppended => Op::Nop,
            }
        });
    }
}

impl Default for MemoryIdempotency {
    /// With [`Retention::default`].
    fn default() -> Self {
        Self::new(Retention::default())
    }
}

fn key(attempt: &IdempotentSubmission) -> (BudgetId, PersonKey, SubmissionId) {
    (attempt.budget.clone(), attempt.person, attempt.submission)
}

#[async_trait]
impl Idempotency for MemoryIdempotency {
    async fn begin(
        &self,
        attempts: &[IdempotentSubmission],
        around_append: Duration,
    ) -> Vec<BeginOutcome> {
        attempts.iter().map(|attempt| self.begin_one(attempt, around_append)).collect()
    }

    async fn finish(&self, outcomes: &[(IdempotentSubmission, AttemptOutcome)]) {
        for (attempt, outcome) in outcomes {
            self.finish_one(attempt, *outcome);
        }
    }
}

impl Retention {
    fn time_to_live(&self, attempt: &StoredAttempt) -> Option<Duration> {
        Some(match attempt.state {
            AttemptState::InFlight { around_append } => self.in_flight + around_append,
            AttemptState::Unknown | AttemptState::Accepted(_) => self.receipts,
        })
    }
}

impl<K> Expiry<K, StoredAttempt> for Retention {
    fn expire_after_create(&self, _: &K, attempt: &StoredAttempt, _: Instant) -> Option<Duration> {
        self.time_to_live(attempt)
    }

    fn expire_after_update(
        &self,
        _: &K,
        attempt: &StoredAttempt,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        self.time_to_live(attempt)
    }
}
