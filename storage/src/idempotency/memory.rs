//! Submission ids in process memory, bounded in number and age. A restart loses them.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use moka::Expiry;
use moka::ops::compute::Op;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use schemas::{BudgetId, Receipt, SubmissionId};

use super::{BeginOutcome, Idempotency, IdempotentSubmission};

/// Bounds the number and age of stored attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Maximum number of attempts; the least recently used are evicted.
    pub attempts: u64,
    /// How long an attempt stays in flight if it is never finished.
    pub in_flight: Duration,
    /// How long a receipt is stored.
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
    attempts: Cache<(BudgetId, SubmissionId), StoredAttempt>,
}

#[derive(Debug, Clone, Copy)]
struct StoredAttempt {
    digest: u64,
    /// `None` while it is in flight.
    receipt: Option<Receipt>,
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

    fn begin_one(&self, attempt: &IdempotentSubmission) -> BeginOutcome {
        let mut outcome = BeginOutcome::First;
        // Moka serializes these calls per key: of two concurrent attempts, one is the first.
        self.attempts.entry(key(attempt)).and_compute_with(|entry| match entry {
            None => Op::Put(StoredAttempt { digest: attempt.digest, receipt: None }),
            Some(entry) => {
                outcome = match *entry.value() {
                    StoredAttempt { digest, .. } if digest != attempt.digest => {
                        BeginOutcome::Reused
                    }
                    StoredAttempt { receipt: Some(receipt), .. } => BeginOutcome::Repeat(receipt),
                    StoredAttempt { receipt: None, .. } => BeginOutcome::InFlight,
                };
                Op::Nop
            }
        });
        outcome
    }

    fn remove_unaccepted(&self, attempt: &IdempotentSubmission) {
        // The receipt of a concurrent attempt must stay.
        self.attempts.entry(key(attempt)).and_compute_with(|entry| match entry {
            Some(entry)
                if entry.value().digest == attempt.digest && entry.value().receipt.is_none() =>
            {
                Op::Remove
            }
            _ => Op::Nop,
        });
    }
}

impl Default for MemoryIdempotency {
    /// With [`Retention::default`].
    fn default() -> Self {
        Self::new(Retention::default())
    }
}

fn key(attempt: &IdempotentSubmission) -> (BudgetId, SubmissionId) {
    (attempt.budget.clone(), attempt.submission)
}

#[async_trait]
impl Idempotency for MemoryIdempotency {
    async fn begin(&self, attempts: &[IdempotentSubmission]) -> Vec<BeginOutcome> {
        attempts.iter().map(|attempt| self.begin_one(attempt)).collect()
    }

    async fn finish(&self, outcomes: &[(IdempotentSubmission, Option<Receipt>)]) {
        for (attempt, receipt) in outcomes {
            match receipt {
                Some(_) => self.attempts.insert(
                    key(attempt),
                    StoredAttempt { digest: attempt.digest, receipt: *receipt },
                ),
                None => self.remove_unaccepted(attempt),
            }
        }
    }
}

impl Retention {
    fn time_to_live(&self, attempt: &StoredAttempt) -> Option<Duration> {
        Some(if attempt.receipt.is_some() { self.receipts } else { self.in_flight })
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
