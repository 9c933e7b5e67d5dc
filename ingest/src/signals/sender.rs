//! The queue of signals.

use std::sync::Arc;

use prometheus::IntCounter;
use runtime::metrics::{Metrics, MetricsError};
use schemas::{Signal, SignalOrigin, Submission};
use storage::signals::SignalWriter;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::appender::{Appender, PendingSignals};
use super::origin::OriginDigester;

/// Signals that may wait; about 100 bytes each. A second and more of the highest rate of submissions.
const MAX_QUEUED_SIGNALS: usize = 50_000;

/// Queues signals without waiting.
pub(crate) struct SignalSender {
    queue: mpsc::Sender<Signal>,
    digester: Arc<OriginDigester>,
    pub(super) dropped_full: IntCounter,
    pub(super) dropped_shutdown: IntCounter,
}

impl SignalSender {
    /// Starts the task that appends, which ends with the sender or a flush. Must be called in a tokio runtime.
    pub fn start(
        writer: Arc<dyn SignalWriter>,
        metrics: &Metrics,
        digester: Arc<OriginDigester>,
    ) -> Result<(Self, PendingSignals), MetricsError> {
        Self::start_bounded(writer, metrics, digester, MAX_QUEUED_SIGNALS)
    }

    pub(super) fn start_bounded(
        writer: Arc<dyn SignalWriter>,
        metrics: &Metrics,
        digester: Arc<OriginDigester>,
        max_queued: usize,
    ) -> Result<(Self, PendingSignals), MetricsError> {
        let dropped = metrics.counter_vec(
            "ingest_signals_dropped_total",
            "Signals that were not appended, by reason: queue_full, unavailable, shutdown.",
            &["reason"],
        )?;
        let dropped = |reason: &str| dropped.with_label_values(&[reason]);
        let appended = metrics.counter(
            "ingest_signals_appended_total",
            "Signals of accepted submissions that were appended.",
        )?;
        let (queue, queued) = mpsc::channel(max_queued);
        let dropped_shutdown = dropped("shutdown");
        let pending = Appender {
            writer,
            queued,
            batch: Vec::new(),
            is_failing: false,
            appended,
            dropped_unavailable: dropped("unavailable"),
            dropped_shutdown: dropped_shutdown.clone(),
        }
        .start();
        let sender =
            Self { queue, digester, dropped_full: dropped("queue_full"), dropped_shutdown };
        Ok((sender, pending))
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
        match self.queue.try_send(signal) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => self.dropped_full.inc(),
            Err(TrySendError::Closed(_)) => self.dropped_shutdown.inc(),
        }
    }
}
