//! The memory of submission ids.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use schemas::{BudgetId, Receipt, SubmissionId};
use storage::idempotency::{BeginOutcome, Idempotency, IdempotentSubmission};

use super::lock;

/// A content digest, and the receipt once the submission is accepted.
type KnownSubmission = (u64, Option<Receipt>);

#[derive(Default)]
pub struct FakeIdempotency {
    known: Mutex<HashMap<(BudgetId, SubmissionId), KnownSubmission>>,
    pub begun: AtomicUsize,
}

impl FakeIdempotency {
    /// Forgets every id, as a restart does.
    pub fn forget_all(&self) {
        lock(&self.known).clear();
    }
}

#[async_trait]
impl Idempotency for FakeIdempotency {
    async fn begin(&self, attempts: &[IdempotentSubmission]) -> Vec<BeginOutcome> {
        self.begun.fetch_add(attempts.len(), Ordering::SeqCst);
        let mut known = lock(&self.known);
        attempts
            .iter()
            .map(|attempt| {
                let key = (attempt.budget.clone(), attempt.submission);
                match known.get(&key) {
                    None => {
                        known.insert(key, (attempt.digest, None));
                        BeginOutcome::First
                    }
                    Some((digest, _)) if *digest != attempt.digest => BeginOutcome::Reused,
                    Some((_, Some(receipt))) => BeginOutcome::Repeat(*receipt),
                    Some((_, None)) => BeginOutcome::InFlight,
                }
            })
            .collect()
    }

    async fn finish(&self, outcomes: &[(IdempotentSubmission, Option<Receipt>)]) {
        let mut known = lock(&self.known);
        for (attempt, receipt) in outcomes {
            let key = (attempt.budget.clone(), attempt.submission);
            match receipt {
                Some(_) => known.insert(key, (attempt.digest, *receipt)),
                None => known.remove(&key),
            };
        }
    }
}
