//! The task that appends what is queued, also at a shutdown.

use std::sync::Arc;
use std::time::Duration;

use prometheus::IntCounter;
use runtime::clock::now_ms;
use schemas::Signal;
use storage::signals::{MAX_BATCH_SIGNALS, SignalWriter};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

/// How often old signals are deleted.
const EXPIRE_INTERVAL: Duration = Duration::from_secs(600);
/// Pause between two deletions while there is more to delete.
pub(super) const EXPIRE_PAUSE: Duration = Duration::from_millis(100);
/// How long a shutdown waits for the queue. A full one is 50 batches, so that a log that works takes all of it. No part
/// of the drain timeout, which is as long as clients may be slow.
pub(super) const FLUSH_TIMEOUT: Duration = Duration::from_secs(3);

/// The signals that are not appended yet, at the end of the process.
#[derive(Debug)]
pub struct PendingSignals {
    flush: CancellationToken,
    appender: JoinHandle<()>,
}

impl PendingSignals {
    /// Appends what is queued, for three seconds at most, and drops the rest. To be called when no request is served
    /// any more: later signals are dropped.
    pub async fn flush(self) {
        self.flush.cancel();
        // An error is a panic, which is reported where it happens.
        let _ = self.appender.await;
    }
}

/// Appends the signals of a queue in batches.
pub(super) struct Appender {
    pub writer: Arc<dyn SignalWriter>,
    pub queued: mpsc::Receiver<Signal>,
    /// Taken out of the queue, and not appended yet.
    pub batch: Vec<Signal>,
    pub is_failing: bool,
    pub appended: IntCounter,
    pub dropped_unavailable: IntCounter,
    pub dropped_shutdown: IntCounter,
}

impl Appender {
    /// Starts the task, which ends when the queue has no more senders, or is flushed.
    pub fn start(self) -> PendingSignals {
        let flush = CancellationToken::new();
        let appender = tokio::spawn(self.run(flush.clone()));
        PendingSignals { flush, appender }
    }

    async fn run(mut self, flush: CancellationToken) {
        let flush_times_out = async {
            flush.cancelled().await;
            sleep(FLUSH_TIMEOUT).await;
        };
        tokio::select! {
            biased;
            () = self.append_until_closed(&flush) => return,
            () = flush_times_out => {}
        }
        // Whether the batch in flight was appended is unknown; it counts as dropped.
        let lost = self.batch.len() + self.queued.len();
        if lost > 0 {
            self.dropped_shutdown.inc_by(lost as u64);
            tracing::warn!(
                signals = lost,
                "failed to append signals before the shutdown, dropping them"
            );
        }
    }

    async fn append_until_closed(&mut self, flush: &CancellationToken) {
        let mut expire = interval(EXPIRE_INTERVAL);
        expire.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let is_open = !self.queued.is_closed();
            tokio::select! {
                received = self.queued.recv_many(&mut self.batch, MAX_BATCH_SIGNALS) => {
                    if received == 0 {
                        return;
                    }
                    self.append_batch().await;
                }
                _ = expire.tick(), if is_open => {
                    if self.expire_some().await {
                        // Signals that have come meanwhile are appended first.
                        expire.reset_after(EXPIRE_PAUSE);
                    }
                }
                () = flush.cancelled(), if is_open => self.queued.close(),
            }
        }
    }

    async fn append_batch(&mut self) {
        let appended = self.writer.append(&self.batch).await;
        let signals = self.batch.len() as u64;
        self.batch.clear();
        match appended {
            Ok(()) => {
                self.appended.inc_by(signals);
                if std::mem::take(&mut self.is_failing) {
                    tracing::info!("signals are appended again");
                }
            }
            Err(error) => {
                self.dropped_unavailable.inc_by(signals);
                // Once for each outage.
                if !std::mem::replace(&mut self.is_failing, true) {
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
