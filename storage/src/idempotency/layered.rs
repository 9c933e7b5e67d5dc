//! Submission ids in this process's memory in front of those that all processes share.
//!
//! What this process has accepted it recognises also while the shared store is unreachable, or after the store has lost
//! it.

use std::time::Duration;

use async_trait::async_trait;

use super::memory::MemoryIdempotency;
use super::{AttemptOutcome, BeginOutcome, Idempotency, IdempotentSubmission};

/// Submission ids in memory in front of a shared store.
pub struct LayeredIdempotency<S> {
    own: MemoryIdempotency,
    shared: S,
}

impl<S> LayeredIdempotency<S> {
    /// Puts `own` in front of `shared`.
    pub fn new(own: MemoryIdempotency, shared: S) -> Self {
        Self { own, shared }
    }
}

#[async_trait]
impl<S: Idempotency> Idempotency for LayeredIdempotency<S> {
    async fn begin(
        &self,
        attempts: &[IdempotentSubmission],
        around_append: Duration,
    ) -> Vec<BeginOutcome> {
        let mut outcomes = self.own.begin(attempts, around_append).await;
        let unknown: Vec<IdempotentSubmission> = attempts
            .iter()
            .zip(&outcomes)
            .filter(|(_, outcome)| **outcome == BeginOutcome::First)
            .map(|(attempt, _)| attempt.clone())
            .collect();
        if unknown.is_empty() {
            return outcomes;
        }
        let shared = self.shared.begin(&unknown, around_append).await;
        let mut known_elsewhere = Vec::new();
        let first = outcomes.iter_mut().filter(|outcome| **outcome == BeginOutcome::First);
        for ((outcome, attempt), shared) in first.zip(unknown).zip(shared) {
            match shared {
                BeginOutcome::First | BeginOutcome::Unchecked => {}
                BeginOutcome::Repeat(receipt) => {
                    known_elsewhere.push((attempt, AttemptOutcome::Accepted(receipt)));
                }
                // Another process may still accept or refuse it: this one does not know.
                BeginOutcome::InFlight | BeginOutcome::Reused => {
                    known_elsewhere.push((attempt, AttemptOutcome::NotAppended));
                }
            }
            *outcome = shared;
        }
        self.own.finish(&known_elsewhere).await;
        outcomes
    }

    async fn finish(&self, outcomes: &[(IdempotentSubmission, AttemptOutcome)]) {
        self.own.finish(outcomes).await;
        self.shared.finish(outcomes).await;
    }
}
