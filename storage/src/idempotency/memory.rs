//! Submission ids in this process: a bounded number of them, each for a bounded time. A restart forgets them all.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use moka::Expiry;
use moka::ops::compute::Op;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use schemas::{BudgetId, Receipt, SubmissionId};

use super::{Attempt, Begun, Idempotency};

/// How much is remembered, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// How many attempts at most; beyond that the least recently used are forgotten.
    pub attempts: u64,
    /// How long an attempt counts as in flight when nobody says what became of it.
    pub in_flight: Duration,
    /// How long a receipt is remembered.
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

/// Submission ids in this process.
pub struct MemoryIdempotency {
    attempts: Cache<(BudgetId, SubmissionId), Known>,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    digest: u64,
    /// `None` while it is in flight.
    receipt: Option<Receipt>,
}

impl MemoryIdempotency {
    /// Begins with nothing.
    pub fn new(retention: Retention) -> Self {
        let attempts = Cache::builder()
            .max_capacity(retention.attempts)
            // The default policy prefers what is asked for often to what is new, and would not take in an attempt.
            .eviction_policy(EvictionPolicy::lru())
            .expire_after(retention)
            .build();
        Self { attempts }
    }

    fn begin_one(&self, attempt: &Attempt) -> Begun {
        let mut begun = Begun::First;
        // Moka runs this alone for the key: of two at once, one is the first.
        self.attempts.entry(key(attempt)).and_compute_with(|entry| match entry {
            None => Op::Put(Known { digest: attempt.digest, receipt: None }),
            Some(entry) => {
                begun = match *entry.value() {
                    Known { digest, .. } if digest != attempt.digest => Begun::Reused,
                    Known { receipt: Some(receipt), .. } => Begun::Repeat(receipt),
                    Known { receipt: None, .. } => Begun::InFlight,
                };
                Op::Nop
            }
        });
        begun
    }

    fn forget(&self, attempt: &Attempt) {
        // What was accepted meanwhile must stay.
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

fn key(attempt: &Attempt) -> (BudgetId, SubmissionId) {
    (attempt.budget.clone(), attempt.submission)
}

#[async_trait]
impl Idempotency for MemoryIdempotency {
    async fn begin(&self, attempts: &[Attempt]) -> Vec<Begun> {
        attempts.iter().map(|attempt| self.begin_one(attempt)).collect()
    }

    async fn finish(&self, outcomes: &[(Attempt, Option<Receipt>)]) {
        for (attempt, receipt) in outcomes {
            match receipt {
                Some(_) => self
                    .attempts
                    .insert(key(attempt), Known { digest: attempt.digest, receipt: *receipt }),
                None => self.forget(attempt),
            }
        }
    }
}

impl Retention {
    fn of(&self, known: &Known) -> Option<Duration> {
        Some(if known.receipt.is_some() { self.receipts } else { self.in_flight })
    }
}

impl<K> Expiry<K, Known> for Retention {
    fn expire_after_create(&self, _: &K, known: &Known, _: Instant) -> Option<Duration> {
        self.of(known)
    }

    fn expire_after_update(
        &self,
        _: &K,
        known: &Known,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        self.of(known)
    }
}
