//! Guards a tier that can fail: deadline, circuit breaker and metrics.
//!
//! A read whose client disconnects before the read ends is abandoned: it says nothing about the tier.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use prometheus::{Histogram, IntCounter, IntGauge};
use tokio::time::{Instant, timeout};

use super::TierError;
use crate::breaker::{Breaker, BreakerDecision, BreakerSettings, BreakerState};
use crate::metrics::ApiMetrics;

/// A tier's deadline, breaker and metrics.
#[derive(Debug)]
pub struct Guard {
    name: &'static str,
    deadline: Duration,
    breaker: Breaker,
    healthy: AtomicBool,
    latency: Histogram,
    state: IntGauge,
    failed: IntCounter,
    timed_out: IntCounter,
    refused: IntCounter,
    abandoned: IntCounter,
}

impl Guard {
    /// Creates a guard; `name` is the tier's label in metrics and logs.
    pub fn new(
        name: &'static str,
        deadline: Duration,
        breaker: BreakerSettings,
        metrics: &ApiMetrics,
    ) -> Self {
        let reads = |outcome| metrics.reads.with_label_values(&[name, outcome]);
        Self {
            name,
            deadline,
            breaker: Breaker::new(breaker),
            healthy: AtomicBool::new(false),
            latency: metrics.tier_seconds.with_label_values(&[name]),
            state: metrics.breaker_state.with_label_values(&[name]),
            failed: reads("failed"),
            timed_out: reads("timeout"),
            refused: reads("passed_over"),
            abandoned: reads("abandoned"),
        }
    }

    /// Decides whether the caller may read. An admitted caller must [`run`](Self::run) its read.
    pub fn admit(&self) -> BreakerDecision {
        let decision = self.breaker.admit(Instant::now());
        match decision {
            BreakerDecision::Refused => self.refused.inc(),
            BreakerDecision::Probe => self.state.set(BreakerState::HalfOpen as i64),
            BreakerDecision::Pass => {}
        }
        decision
    }

    /// Runs an admitted read within the deadline, and records its outcome.
    ///
    /// # Errors
    /// When the read fails or takes too long.
    pub async fn run<T>(
        &self,
        decision: BreakerDecision,
        read: impl Future<Output = Result<T, TierError>>,
    ) -> Result<T, TierError> {
        let mut recorder = OutcomeRecorder { guard: self, decision, succeeded: None };
        let timer = self.latency.start_timer();
        let answer = timeout(self.deadline, read).await;
        timer.observe_duration();
        recorder.succeeded = Some(matches!(answer, Ok(Ok(_))));
        match answer {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => {
                self.failed.inc();
                tracing::debug!(tier = self.name, %error, "tier read failed");
                Err(error)
            }
            Err(_) => {
                self.timed_out.inc();
                tracing::debug!(tier = self.name, "tier read timed out");
                Err(TierError(format!("no answer within {} ms", self.deadline.as_millis())))
            }
        }
    }

    /// Returns whether the latest read succeeded.
    pub fn is_healthy(&self) -> bool {
        self.healthy.load(Ordering::Relaxed)
    }

    fn record_abandoned(&self, decision: BreakerDecision) {
        self.abandoned.inc();
        if decision == BreakerDecision::Probe {
            self.breaker.release_probe(Instant::now());
            self.state.set(self.breaker.state() as i64);
        }
    }

    fn record(&self, succeeded: bool) {
        self.healthy.store(succeeded, Ordering::Relaxed);
        let before = self.breaker.state();
        if succeeded {
            self.breaker.record_success();
        } else {
            self.breaker.record_failure(Instant::now());
        }
        let after = self.breaker.state();
        self.state.set(after as i64);
        match (before, after) {
            (BreakerState::Closed, BreakerState::Open) => {
                tracing::warn!(tier = self.name, "circuit breaker opened");
            }
            (BreakerState::HalfOpen | BreakerState::Open, BreakerState::Closed) => {
                tracing::info!(tier = self.name, "circuit breaker closed");
            }
            _ => {}
        }
    }
}

/// Records a read's outcome when dropped, also when the read is cancelled.
struct OutcomeRecorder<'a> {
    guard: &'a Guard,
    decision: BreakerDecision,
    /// `None` until the read has ended.
    succeeded: Option<bool>,
}

impl Drop for OutcomeRecorder<'_> {
    fn drop(&mut self) {
        match self.succeeded {
            Some(succeeded) => self.guard.record(succeeded),
            None if std::thread::panicking() => self.guard.record(false),
            None => self.guard.record_abandoned(self.decision),
        }
    }
}
