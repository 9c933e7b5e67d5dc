//! The queue of signals, and the task that appends them.

use std::sync::Arc;
use std::time::Duration;

use prometheus::IntCounter;
use runtime::clock::now_ms;
use runtime::metrics::{Metrics, MetricsError};
use schemas::{Signal, SignalOrigin, Submission};
use storage::signals::{MAX_BATCH_SIGNALS, SignalWriter};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use super::origin::OriginDigester;

/// Signals that may wait; about 100 bytes each. A second and more of the highest rate of submissions.
const MAX_QUEUED_SIGNALS: usize = 50_000;
/// How often old signals are deleted.
const EXPIRE_INTERVAL: Duration = Duration::from_secs(600);
/// Pause between two deletions while there is more to delete.
const EXPIRE_PAUSE: Duration = Duration::from_millis(100);

/// Queues signals without waiting.
pub(crate) struct SignalSender {
    queue: mpsc::Sender<Signal>,
    digester: Arc<OriginDigester>,
    dropped_full: IntCounter,
}

impl SignalSender {
    /// Starts the task that appends, which ends with the sender. Must be called in a tokio runtime.
    pub fn start(
        writer: Arc<dyn SignalWriter>,
        metrics: &Metrics,
        digester: Arc<OriginDigester>,
    ) -> Result<Self, MetricsError> {
        Self::start_bounded(writer, metrics, digester, MAX_QUEUED_SIGNALS)
    }

    fn start_bounded(
        writer: Arc<dyn SignalWriter>,
        metrics: &Metrics,
        digester: Arc<OriginDigester>,
        max_queued: usize,
    ) -> Result<Self, MetricsError> {
        let dropped = metrics.counter_vec(
            "ingest_signals_dropped_total",
            "Signals that were not appended, by reason: queue_full, unavailable.",
            &["reason"],
        )?;
        let appended = metrics.counter(
            "ingest_signals_appended_total",
            "Signals of accepted submissions that were appended.",
        )?;
        let (queue, queued) = mpsc::channel(max_queued);
        let dropped_unavailable = dropped.with_label_values(&["unavailable"]);
        tokio::spawn(Appender { writer, queued, appended, dropped_unavailable }.run());
        Ok(Self { queue, digester, dropped_full: dropped.with_label_values(&["queue_full"]) })
    }

    /// Queues the signal of an accepted submission, or drops it.
    pub fn send(&self, submission: &Submission, origin: SignalOrigin) {
        let signal = Signal {
            budget: submission.budget.clone(),
            person: submission.person,
            accepted_at_ms: submission.accepted_at_ms,
            action: self.digester.action(submission),
            origin,
        };
        if self.queue.try_send(signal).is_err() {
            self.dropped_full.inc();
        }
    }
}

struct Appender {
    writer: Arc<dyn SignalWriter>,
    queued: mpsc::Receiver<Signal>,
    appended: IntCounter,
    dropped_unavailable: IntCounter,
}

impl Appender {
    async fn run(mut self) {
        let mut batch = Vec::with_capacity(MAX_BATCH_SIGNALS);
        let mut expire = interval(EXPIRE_INTERVAL);
        expire.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut is_failing = false;
        loop {
            tokio::select! {
                received = self.queued.recv_many(&mut batch, MAX_BATCH_SIGNALS) => {
                    if received == 0 {
                        return;
                    }
                    self.append(&batch, &mut is_failing).await;
                    batch.clear();
                }
                _ = expire.tick() => {
                    if self.expire_some().await {
                        // Signals that have come meanwhile are appended first.
                        expire.reset_after(EXPIRE_PAUSE);
                    }
                }
            }
        }
    }

    async fn append(&self, batch: &[Signal], is_failing: &mut bool) {
        match self.writer.append(batch).await {
            Ok(()) => {
                self.appended.inc_by(batch.len() as u64);
                if std::mem::take(is_failing) {
                    tracing::info!("signals are appended again");
                }
            }
            Err(error) => {
                self.dropped_unavailable.inc_by(batch.len() as u64);
                // Once for each outage.
                if !std::mem::replace(is_failing, true) {
                    tracing::warn!(%error, "failed to append signals, dropping them");
                }
            }
        }
    }

    /// Deletes some old signals. Returns whether there may be more.
    async fn expire_some(&self) -> bool {
        self.writer.expire(now_ms()).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "failed to delete old signals, retrying");
            false
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use async_trait::async_trait;
    use schemas::{Action, BudgetId, IdentityLevel, PersonKey, PersonKeyHasher, SubmissionId};
    use storage::log::AppendError;
    use tokio::sync::Semaphore;

    use super::*;

    /// Appends a batch for each permit.
    struct SlowWriter {
        permits: Semaphore,
        batches: Mutex<Vec<usize>>,
    }

    #[async_trait]
    impl SignalWriter for SlowWriter {
        async fn append(&self, signals: &[Signal]) -> Result<(), AppendError> {
            self.permits.acquire().await.unwrap().forget();
            self.batches.lock().unwrap().push(signals.len());
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

    #[tokio::test(start_paused = true)]
    async fn signals_are_appended_while_old_ones_are_deleted() {
        let writer = Arc::new(BacklogWriter::default());
        let digester = OriginDigester::new(&PersonKeyHasher::new(&[7; 32]).unwrap(), 0);
        let log = Arc::clone(&writer) as Arc<dyn SignalWriter>;
        let sender = SignalSender::start(log, &Metrics::new("test"), Arc::new(digester)).unwrap();
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
        let hasher = PersonKeyHasher::new(&[7; 32]).unwrap();
        let digester = Arc::new(OriginDigester::new(&hasher, 0));
        let metrics = Metrics::new("test");
        let log = Arc::clone(&writer) as Arc<dyn SignalWriter>;
        let sender = SignalSender::start_bounded(log, &metrics, digester, 100).unwrap();
        let (submission, origin) = submission();
        // The task has not begun: nothing is taken out of the queue.
        for _ in 0..250 {
            sender.send(&submission, origin);
        }
        assert_eq!(sender.dropped_full.get(), 150);
        writer.permits.add_permits(1);
        while writer.batches.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        assert_eq!(*writer.batches.lock().unwrap(), [100]);
    }
}
