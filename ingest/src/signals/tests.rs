//! Tests of the queue of signals: its bound, and what a shutdown does with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use runtime::metrics::Metrics;
use schemas::{
    Action, BudgetId, IdentityLevel, PersonKey, PersonSecret, Signal, SignalOrigin, Submission,
    SubmissionId,
};
use storage::log::AppendError;
use storage::signals::{MAX_BATCH_SIGNALS, SignalWriter};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::appender::{EXPIRE_PAUSE, FLUSH_TIMEOUT, PendingSignals};
use super::{OriginDigester, SignalSender};

/// Appends a batch for each permit.
struct SlowWriter {
    permits: Semaphore,
    batches: Mutex<Vec<usize>>,
}

#[async_trait]
impl SignalWriter for SlowWriter {
    async fn append(&self, signals: &[Signal]) -> Result<(), AppendError> {
        self.permits.acquire().await.unwrap().forget();
        self.batches.lock().push(signals.len());
        Ok(())
    }

    async fn expire(&self, _now_ms: u64) -> Result<bool, AppendError> {
        Ok(false)
    }
}

/// Takes as long for each batch, by the test's clock.
struct PacedWriter {
    batch_time: Duration,
    appended: AtomicUsize,
}

#[async_trait]
impl SignalWriter for PacedWriter {
    async fn append(&self, signals: &[Signal]) -> Result<(), AppendError> {
        tokio::time::sleep(self.batch_time).await;
        self.appended.fetch_add(signals.len(), Ordering::Relaxed);
        Ok(())
    }

    async fn expire(&self, _now_ms: u64) -> Result<bool, AppendError> {
        Ok(false)
    }
}

/// Has old signals without end.
#[derive(Default)]
struct BacklogWriter {
    appended: AtomicUsize,
    deletions: AtomicUsize,
}

#[async_trait]
impl SignalWriter for BacklogWriter {
    async fn append(&self, signals: &[Signal]) -> Result<(), AppendError> {
        self.appended.fetch_add(signals.len(), Ordering::Relaxed);
        Ok(())
    }

    async fn expire(&self, _now_ms: u64) -> Result<bool, AppendError> {
        self.deletions.fetch_add(1, Ordering::Relaxed);
        Ok(true)
    }
}

fn submission() -> (Submission, SignalOrigin) {
    let submission = Submission {
        budget: BudgetId::parse("taxes").unwrap(),
        person: PersonKey::from_bytes([1; 16]),
        id: SubmissionId(uuid::Uuid::nil()),
        accepted_at_ms: 5,
        action: Action::Withdraw,
    };
    let identity = IdentityLevel::Anonymous;
    (submission, SignalOrigin { network: None, agent: None, identity })
}

fn start(writer: Arc<dyn SignalWriter>, max_queued: usize) -> (SignalSender, PendingSignals) {
    let digester = OriginDigester::new(&PersonSecret::new(&[7; 32]).unwrap(), 0);
    let metrics = Metrics::new("test");
    SignalSender::start_bounded(writer, &metrics, Arc::new(digester), max_queued).unwrap()
}

#[tokio::test(start_paused = true)]
async fn signals_are_appended_while_old_ones_are_deleted() {
    let writer = Arc::new(BacklogWriter::default());
    let (sender, _pending) = start(writer.clone(), 100);
    let (submission, origin) = submission();
    for sent in 1..=3 {
        let deletions = writer.deletions.load(Ordering::Relaxed);
        sender.send(&submission, origin);
        while writer.deletions.load(Ordering::Relaxed) < deletions + 2 {
            tokio::time::sleep(EXPIRE_PAUSE).await;
        }
        assert_eq!(writer.appended.load(Ordering::Relaxed), sent);
    }
}

#[tokio::test]
async fn what_does_not_fit_into_the_queue_is_dropped_and_counted_and_the_rest_is_one_batch() {
    let writer = Arc::new(SlowWriter { permits: Semaphore::new(0), batches: Mutex::default() });
    let (sender, _pending) = start(writer.clone(), 100);
    let (submission, origin) = submission();
    // The task has not begun: nothing is taken out of the queue.
    for _ in 0..250 {
        sender.send(&submission, origin);
    }
    assert_eq!(sender.dropped_full.get(), 150);
    writer.permits.add_permits(1);
    while writer.batches.lock().is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(*writer.batches.lock(), [100]);
}

/// Queues two and a half batches, and flushes them. Returns what was appended, what was dropped, and how long it took.
async fn flush(batch_time: Duration) -> (usize, u64, Duration) {
    let writer = Arc::new(PacedWriter { batch_time, appended: AtomicUsize::new(0) });
    let (sender, pending) = start(writer.clone(), 10 * MAX_BATCH_SIGNALS);
    let (submission, origin) = submission();
    for _ in 0..2 * MAX_BATCH_SIGNALS + MAX_BATCH_SIGNALS / 2 {
        sender.send(&submission, origin);
    }
    let began = Instant::now();
    // The sender lives on, as that of a request that was cut off.
    pending.flush().await;
    (writer.appended.load(Ordering::Relaxed), sender.dropped_shutdown.get(), began.elapsed())
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_waits_until_a_slow_log_has_appended_what_is_queued() {
    let batch_time = FLUSH_TIMEOUT / 4;
    assert_eq!(flush(batch_time).await, (5 * MAX_BATCH_SIGNALS / 2, 0, 3 * batch_time));
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_does_not_wait_longer_and_counts_what_is_lost() {
    let expected = (MAX_BATCH_SIGNALS, 3 * MAX_BATCH_SIGNALS as u64 / 2, FLUSH_TIMEOUT);
    assert_eq!(flush(FLUSH_TIMEOUT * 2 / 3).await, expected);
    assert_eq!(flush(Duration::MAX).await, (0, 5 * MAX_BATCH_SIGNALS as u64 / 2, FLUSH_TIMEOUT));
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_with_an_empty_queue_does_not_wait_and_later_signals_are_counted_as_lost() {
    let writer = SlowWriter { permits: Semaphore::new(0), batches: Mutex::default() };
    let (sender, pending) = start(Arc::new(writer), 100);
    let began = Instant::now();
    pending.flush().await;
    assert_eq!(began.elapsed(), Duration::ZERO);
    let (submission, origin) = submission();
    sender.send(&submission, origin);
    assert_eq!((sender.dropped_shutdown.get(), sender.dropped_full.get()), (1, 0));
}
