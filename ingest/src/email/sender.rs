//! Pending mails: bounded in number, tried again until their code has expired, counted by outcome.
//!
//! A restart loses pending mails: whoever waits for one asks again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use identity::email::EmailAddress;
use page::mail::CodeMail;
use prometheus::{IntCounter, IntCounterVec, IntGauge};
use runtime::metrics::{Metrics, MetricsError};
use schemas::CODE_LIFETIME;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::smtp::{MAX_CONNECTIONS, Mailer, SendFault};

/// Mails that wait or are tried again. Each takes some kilobytes.
const MAX_PENDING_MAILS: usize = 1_000;
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// Why nothing is sent for an address that asked for a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Withheld {
    /// Its domain may not take part.
    Denied,
    /// Its mailbox has had too many mails.
    Throttled,
}

/// A mail to be sent, or the reason why it is not.
pub(super) struct MailOrder {
    pub to: EmailAddress,
    pub mail: CodeMail,
    pub withheld: Option<Withheld>,
}

/// Sends mails in the background. Cheap to clone.
#[derive(Clone)]
pub(super) struct MailSender(Arc<Inner>);

struct Inner {
    mailer: Mailer,
    pending: Semaphore,
    connections: Semaphore,
    metrics: MailMetrics,
    is_failing: AtomicBool,
    stop: CancellationToken,
}

struct MailMetrics {
    outcomes: IntCounterVec,
    failed_attempts: IntCounter,
    pending: IntGauge,
    failing: IntGauge,
}

impl MailMetrics {
    fn register(metrics: &Metrics) -> Result<Self, MetricsError> {
        let outcomes = metrics.counter_vec(
            "ingest_emails_total",
            "Mails with one-time codes that were asked for, by outcome.",
            &["outcome"],
        )?;
        for outcome in ["sent", "refused", "expired", "dropped", "denied", "throttled"] {
            outcomes.with_label_values(&[outcome]);
        }
        Ok(Self {
            outcomes,
            failed_attempts: metrics.counter(
                "ingest_email_failed_attempts_total",
                "Attempts to send a mail that failed, also those that were repeated.",
            )?,
            pending: metrics
                .gauge("ingest_emails_pending", "Mails that wait or are tried again.")?,
            failing: metrics.gauge(
                "ingest_email_sending_fails",
                "1 since the SMTP server could not be reached or refused more than a recipient, until it takes a mail.",
            )?,
        })
    }

    fn count(&self, outcome: &str) {
        self.outcomes.with_label_values(&[outcome]).inc();
    }
}

impl MailSender {
    /// Creates the sender. It stops sending when `stop` is cancelled.
    pub fn new(
        mailer: Mailer,
        metrics: &Metrics,
        stop: CancellationToken,
    ) -> Result<Self, MetricsError> {
        Ok(Self(Arc::new(Inner {
            mailer,
            pending: Semaphore::new(MAX_PENDING_MAILS),
            connections: Semaphore::new(MAX_CONNECTIONS),
            metrics: MailMetrics::register(metrics)?,
            is_failing: AtomicBool::new(false),
            stop,
        })))
    }

    /// Takes an order and returns at once, as fast for each of them: whoever asks learns nothing from it.
    pub fn take(&self, order: MailOrder) {
        let inner = Arc::clone(&self.0);
        let expires_at = Instant::now() + CODE_LIFETIME;
        tokio::spawn(async move {
            let stop = inner.stop.clone();
            stop.run_until_cancelled(inner.settle(order, expires_at)).await;
        });
    }
}

impl Inner {
    async fn settle(&self, order: MailOrder, expires_at: Instant) {
        match order.withheld {
            Some(Withheld::Denied) => return self.metrics.count("denied"),
            Some(Withheld::Throttled) => return self.metrics.count("throttled"),
            None => {}
        }
        let Ok(_permit) = self.pending.try_acquire() else {
            tracing::warn!(max_pending_mails = MAX_PENDING_MAILS, "mail dropped");
            return self.metrics.count("dropped");
        };
        let _pending = PendingMail::begin(&self.metrics.pending);
        let outcome = timeout_at(expires_at, self.send(order)).await;
        self.metrics.count(match outcome {
            Ok(Ok(())) => "sent",
            Ok(Err(_)) => "refused",
            Err(_) => "expired",
        });
    }

    /// Sends a mail, however often it takes. The caller bounds it.
    async fn send(&self, order: MailOrder) -> Result<(), SendFault> {
        let message = self.mailer.write(&order.to, order.mail)?;
        let attempt = async || {
            // Held during the attempt alone: a mail that is tried again later does not hold up others.
            let _connection = self.connections.acquire().await;
            let sent = self.mailer.send(&message).await;
            self.note(&sent);
            sent
        };
        let backoff = ExponentialBuilder::new()
            .with_min_delay(FIRST_PAUSE)
            .with_max_delay(MAX_PAUSE)
            .with_factor(2.0)
            .with_jitter()
            .without_max_times();
        attempt.retry(backoff).when(|fault| fault.is_transient()).await
    }

    /// Notes whether the server takes mails, and logs each change.
    fn note(&self, sent: &Result<(), SendFault>) {
        let fault = sent.err();
        if fault.is_some() {
            self.metrics.failed_attempts.inc();
        }
        let fails = fault.is_some_and(SendFault::concerns_all);
        if fault.is_some() && !fails {
            return;
        }
        self.metrics.failing.set(fails.into());
        match (self.is_failing.swap(fails, Ordering::Relaxed), fault) {
            (false, Some(fault)) => {
                let reply_code = fault.reply_code();
                tracing::error!(?fault, reply_code, "smtp server takes no mails");
            }
            (true, None) => tracing::info!("smtp server takes mails again"),
            _ => {}
        }
    }
}

/// Counts a mail as pending until it is dropped, also when the process stops before it is sent.
struct PendingMail<'a>(&'a IntGauge);

impl<'a> PendingMail<'a> {
    fn begin(gauge: &'a IntGauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for PendingMail<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}
