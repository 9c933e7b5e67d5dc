//! Pending mails: bounded in number, tried again until their code has expired, counted by outcome.
//!
//! A restart loses pending mails: whoever waits for one asks again.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use identity::email::EmailAddress;
use page::mail::CodeMail;
use parking_lot::Mutex;
use prometheus::{IntCounter, IntCounterVec, IntGauge};
use runtime::metrics::{Metrics, MetricsError};
use schemas::CODE_LIFETIME;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

use super::smtp::{Blame, MAX_CONNECTIONS, Mailer, SendFault};

/// Mails that wait for their first attempt, or are in it. Each takes some kilobytes.
const MAX_NEW_MAILS: usize = 750;
/// Mails that are tried again. Fewer than new ones: recipients that are deferred leave room for all others.
const MAX_RETRIED_MAILS: usize = 250;
/// Retries at once, so that new mails always have connections.
const MAX_RETRY_CONNECTIONS: usize = MAX_CONNECTIONS / 2;
/// Different recipients in a row whose mails must fail before the server counts as failing.
const FAILING_RECIPIENTS: usize = 3;
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
    new_mails: Semaphore,
    retried_mails: Semaphore,
    connections: Semaphore,
    retry_connections: Semaphore,
    metrics: MailMetrics,
    health: Mutex<ServerHealth>,
    hasher: RandomState,
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
        for outcome in ["sent", "refused", "expired", "given_up", "dropped", "denied", "throttled"]
        {
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
                "1 since the SMTP server lacked TLS or a login, or mails to several recipients failed in a row, until it takes one.",
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
            new_mails: Semaphore::new(MAX_NEW_MAILS),
            retried_mails: Semaphore::new(MAX_RETRIED_MAILS),
            connections: Semaphore::new(MAX_CONNECTIONS),
            retry_connections: Semaphore::new(MAX_RETRY_CONNECTIONS),
            metrics: MailMetrics::register(metrics)?,
            health: Mutex::default(),
            hasher: RandomState::new(),
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
        let Ok(place) = self.new_mails.try_acquire() else {
            tracing::warn!(max_new_mails = MAX_NEW_MAILS, "email queue is full, mail dropped");
            return self.metrics.count("dropped");
        };
        let _pending = PendingMail::begin(&self.metrics.pending);
        let sent = timeout_at(expires_at, self.send(order, place)).await;
        self.metrics.count(match sent {
            Ok(SendOutcome::Sent) => "sent",
            Ok(SendOutcome::Refused) => "refused",
            Ok(SendOutcome::GivenUp) => "given_up",
            Err(_) => "expired",
        });
    }

    /// Sends a mail, however often it takes. The caller bounds it.
    async fn send(&self, order: MailOrder, place: SemaphorePermit<'_>) -> SendOutcome {
        let recipient = self.hasher.hash_one(order.to.reveal());
        let Ok(message) = self.mailer.write(&order.to, order.mail) else {
            return SendOutcome::Refused;
        };
        let attempt = async || {
            // Held during the attempt alone: a mail that is tried again later does not hold up others.
            let _connection = self.connections.acquire().await;
            let sent = self.mailer.send(&message).await;
            self.note(recipient, sent);
            sent
        };
        if let Some(outcome) = SendOutcome::of(attempt().await) {
            return outcome;
        }
        let Ok(_retried) = self.retried_mails.try_acquire() else {
            return SendOutcome::GivenUp;
        };
        drop(place);
        let pauses = ExponentialBuilder::new()
            .with_min_delay(FIRST_PAUSE)
            .with_max_delay(MAX_PAUSE)
            .with_factor(2.0)
            .with_jitter()
            .without_max_times();
        for pause in pauses.build() {
            sleep(pause).await;
            let _retry = self.retry_connections.acquire().await;
            if let Some(outcome) = SendOutcome::of(attempt().await) {
                return outcome;
            }
        }
        SendOutcome::GivenUp
    }

    /// Notes whether the server takes mails, and logs each change.
    fn note(&self, recipient: u64, sent: Result<(), SendFault>) {
        let fault = sent.err();
        if fault.is_some() {
            self.metrics.failed_attempts.inc();
        }
        let mut health = self.health.lock();
        let was_failing = health.is_failing;
        health.note(recipient, fault.map(SendFault::blame));
        self.metrics.failing.set(health.is_failing.into());
        match (was_failing, health.is_failing) {
            (false, true) => {
                let reply_code = fault.and_then(SendFault::reply_code);
                tracing::error!(?fault, reply_code, "failed to send mail");
            }
            (true, false) => tracing::info!("smtp server accepts mail again"),
            _ => {}
        }
    }
}

/// What became of a mail before its code has expired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SendOutcome {
    Sent,
    Refused,
    /// Too many others are tried again.
    GivenUp,
}

impl SendOutcome {
    /// Returns the outcome of an attempt; `None` if another one may succeed.
    fn of(sent: Result<(), SendFault>) -> Option<Self> {
        match sent {
            Ok(()) => Some(Self::Sent),
            Err(fault) if fault.is_transient() => None,
            Err(_) => Some(Self::Refused),
        }
    }
}

/// Whether the server takes mails, as far as the last attempts say.
#[derive(Debug, Default)]
struct ServerHealth {
    /// Hashes of the different recipients whose mails failed since the last mail that was taken.
    failed: Vec<u64>,
    is_failing: bool,
}

impl ServerHealth {
    /// Notes an attempt: `None` if the mail was taken.
    fn note(&mut self, recipient: u64, failed: Option<Blame>) {
        match failed {
            None => *self = Self::default(),
            Some(Blame::Recipient) => {}
            Some(Blame::Server) => self.is_failing = true,
            Some(Blame::Either) if self.is_failing || self.failed.contains(&recipient) => {}
            Some(Blame::Either) => {
                self.failed.push(recipient);
                self.is_failing = self.failed.len() >= FAILING_RECIPIENTS;
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_fails_when_mails_to_several_recipients_fail_in_a_row_and_not_those_of_one() {
        let mut health = ServerHealth::default();
        for recipient in [1, 1, 1, 1, 2, 2, 1] {
            health.note(recipient, Some(Blame::Either));
            assert!(!health.is_failing);
        }
        health.note(3, None);
        for recipient in [4, 5] {
            health.note(recipient, Some(Blame::Either));
            health.note(6, Some(Blame::Recipient));
            assert!(!health.is_failing);
        }
        health.note(7, Some(Blame::Either));
        assert!(health.is_failing);
        health.note(4, Some(Blame::Recipient));
        assert!(health.is_failing, "a refused recipient proves nothing");
        health.note(8, None);
        assert!(!health.is_failing);
    }

    #[test]
    fn a_server_without_a_login_fails_at_once() {
        let mut health = ServerHealth::default();
        health.note(1, Some(Blame::Server));
        assert!(health.is_failing);
    }
}
