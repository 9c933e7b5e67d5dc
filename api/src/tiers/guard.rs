//! What stands around every tier that can fail: its deadline, its breaker and its metrics.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use prometheus::{Histogram, IntCounter, IntGauge};
use tokio::time::{Instant, timeout};

use super::TierError;
use crate::breaker::{Admission, Breaker, BreakerSettings, BreakerState};
use crate::metrics::ApiMetrics;

/// A tier's guard.
#[derive(Debug)]
pub struct Guard {
    name: &'static str,
    deadline: Duration,
    breaker: Breaker,
    works: AtomicBool,
    took: Histogram,
    state: IntGauge,
    failed: IntCounter,
    timed_out: IntCounter,
    passed_over: IntCounter,
}

impl Guard {
    /// A guard for what `name` stands for in metrics and logs.
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
            works: AtomicBool::new(false),
            took: metrics.tier_seconds.with_label_values(&[name]),
            state: metrics.breaker_state.with_label_values(&[name]),
            failed: reads("failed"),
            timed_out: reads("timeout"),
            passed_over: reads("passed_over"),
        }
    }

    /// Asks to read. Whoever is not refused must [`run`](Self::run).
    pub fn admit(&self) -> Admission {
        let admission = self.breaker.admit(Instant::now());
        match admission {
            Admission::Refused => self.passed_over.inc(),
            Admission::Probe => self.state.set(BreakerState::HalfOpen as i64),
            Admission::Pass => {}
        }
        admission
    }

    /// Reads within the deadline, and notes how it went.
    ///
    /// # Errors
    /// When it fails or takes too long.
    pub async fn run<T>(
        &self,
        read: impl Future<Output = Result<T, TierError>>,
    ) -> Result<T, TierError> {
        // Should the read panic or be dropped, it has failed.
        let mut outcome = Outcome { guard: self, good: false };
        let timer = self.took.start_timer();
        let answer = timeout(self.deadline, read).await;
        timer.observe_duration();
        match answer {
            Ok(Ok(value)) => {
                outcome.good = true;
                Ok(value)
            }
            Ok(Err(error)) => {
                self.failed.inc();
                tracing::debug!(tier = self.name, %error, "a read failed");
                Err(error)
            }
            Err(_) => {
                self.timed_out.inc();
                tracing::debug!(tier = self.name, "a read took too long");
                Err(TierError(format!("no answer within {} ms", self.deadline.as_millis())))
            }
        }
    }

    /// Whether its last read was answered.
    pub fn works(&self) -> bool {
        self.works.load(Ordering::Relaxed)
    }

    fn note(&self, good: bool) {
        self.works.store(good, Ordering::Relaxed);
        let before = self.breaker.state();
        if good {
            self.breaker.succeeded();
        } else {
            self.breaker.failed(Instant::now());
        }
        let after = self.breaker.state();
        self.state.set(after as i64);
        match (before, after) {
            (BreakerState::Closed, BreakerState::Open) => {
                tracing::warn!(tier = self.name, "does not answer: passed over for a while");
            }
            (BreakerState::HalfOpen | BreakerState::Open, BreakerState::Closed) => {
                tracing::info!(tier = self.name, "answers again");
            }
            _ => {}
        }
    }
}

struct Outcome<'a> {
    guard: &'a Guard,
    good: bool,
}

impl Drop for Outcome<'_> {
    fn drop(&mut self) {
        self.guard.note(self.good);
    }
}
