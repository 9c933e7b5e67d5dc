//! What stands around every tier that can fail: its deadline, its breaker and its metrics.
//!
//! A read whose client went away before it came to an end was abandoned: that says nothing about the tier.

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
    abandoned: IntCounter,
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
            abandoned: reads("abandoned"),
        }
    }

    /// Asks to read. Whoever is not refused must [`run`](Self::run) with what was said.
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
        admission: Admission,
        read: impl Future<Output = Result<T, TierError>>,
    ) -> Result<T, TierError> {
        let mut outcome = Outcome { guard: self, admission, good: None };
        let timer = self.took.start_timer();
        let answer = timeout(self.deadline, read).await;
        timer.observe_duration();
        outcome.good = Some(matches!(answer, Ok(Ok(_))));
        match answer {
            Ok(Ok(value)) => Ok(value),
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

    fn note_abandoned(&self, admission: Admission) {
        self.abandoned.inc();
        if admission == Admission::Probe {
            self.breaker.given_back(Instant::now());
            self.state.set(self.breaker.state() as i64);
        }
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

/// Tells how a read went, also when it is dropped before anyone knows.
struct Outcome<'a> {
    guard: &'a Guard,
    admission: Admission,
    good: Option<bool>,
}

impl Drop for Outcome<'_> {
    fn drop(&mut self) {
        match self.good {
            Some(good) => self.guard.note(good),
            None if std::thread::panicking() => self.guard.note(false),
            None => self.guard.note_abandoned(self.admission),
        }
    }
}
