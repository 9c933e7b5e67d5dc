//! The memory of submission ids, which can be made to forget.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use storage::idempotency::memory::MemoryIdempotency;
use storage::idempotency::{AttemptOutcome, BeginOutcome, Idempotency, IdempotentSubmission};

#[derive(Default)]
pub struct FakeIdempotency {
    known: Mutex<Arc<MemoryIdempotency>>,
    pub begun: AtomicUsize,
    /// While set, nothing is known and nothing is remembered, as without Redis.
    pub away: AtomicBool,
    /// For how long the steps around the append may last, of each call.
    pub around_append: Mutex<Vec<Duration>>,
}

impl FakeIdempotency {
    /// Forgets every id, as a restart does.
    pub fn forget_all(&self) {
        *self.known.lock() = Arc::default();
    }

    fn known(&self) -> Arc<MemoryIdempotency> {
        Arc::clone(&self.known.lock())
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
        self.around_append.lock().push(around_append);
        if self.away.load(Ordering::SeqCst) {
            return vec![BeginOutcome::Unchecked; attempts.len()];
        }
        self.known().begin(attempts, around_append).await
    }

    async fn finish(&self, outcomes: &[(IdempotentSubmission, AttemptOutcome)]) {
        if !self.away.load(Ordering::SeqCst) {
            self.known().finish(outcomes).await;
        }
    }
}
