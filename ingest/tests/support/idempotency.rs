//! The memory of submission ids, which can be made to forget.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use storage::idempotency::memory::MemoryIdempotency;
use storage::idempotency::{AttemptOutcome, BeginOutcome, Idempotency, IdempotentSubmission};

use super::lock;

#[derive(Default)]
pub struct FakeIdempotency {
    known: Mutex<Arc<MemoryIdempotency>>,
    pub begun: AtomicUsize,
    /// For how long the steps around the append may last, of each call.
    pub around_append: Mutex<Vec<Duration>>,
}

impl FakeIdempotency {
    /// Forgets every id, as a restart does.
    pub fn forget_all(&self) {
        *lock(&self.known) = Arc::default();
    }

    fn known(&self) -> Arc<MemoryIdempotency> {
        Arc::clone(&lock(&self.known))
    }
}

#[async_trait]
impl Idempotency for FakeIdempotency {
    async fn begin(
        &self,
        attempts: &[IdempotentSubmission],
        around_append: Duration,
    ) -> Vec<BeginOutcome> {
        self.begun.fetch_add(attempts.len(), Ordering::SeqCst);
        lock(&self.around_append).push(around_append);
        self.known().begin(attempts, around_append).await
    }

    async fn finish(&self, outcomes: &[(IdempotentSubmission, AttemptOutcome)]) {
        self.known().finish(outcomes).await;
    }
}
