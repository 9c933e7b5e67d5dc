//! A circuit breaker: stops reads of a tier after consecutive failures, and probes it with one read at a time.
//!
//! The breaker only decides. The caller reads, and defines what a failure is.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// When a breaker opens and when it probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerSettings {
    /// Consecutive failures after which the breaker opens.
    pub failures: u32,
    /// How long the breaker stays open before a probe.
    pub cooldown: Duration,
}

/// Whether a caller may read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerDecision {
    /// Read.
    Pass,
    /// Read as the only probe: all others are refused until its outcome is recorded.
    Probe,
    /// Do not read.
    Refused,
}

/// A breaker's state. The numbers are the metric's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    /// All reads pass.
    Closed = 0,
    /// One probe is running.
    HalfOpen = 1,
    /// No read passes.
    Open = 2,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Closed { failures: u32 },
    HalfOpen,
    Open { until: Instant },
}

/// A circuit breaker.
///
/// Every decision that lets a caller read must be followed by [`record_success`](Self::record_success) or
/// [`record_failure`](Self::record_failure); a probe without an outcome by [`release_probe`](Self::release_probe).
#[derive(Debug)]
pub struct Breaker {
    settings: BreakerSettings,
    state: Mutex<State>,
}

impl Breaker {
    /// Creates a closed breaker.
    pub fn new(settings: BreakerSettings) -> Self {
        Self { settings, state: Mutex::new(State::Closed { failures: 0 }) }
    }

    /// Decides whether the caller may read now.
    pub fn admit(&self, now: Instant) -> BreakerDecision {
        let mut state = self.state.lock();
        match *state {
            State::Closed { .. } => BreakerDecision::Pass,
            State::Open { until } if now >= until => {
                *state = State::HalfOpen;
                BreakerDecision::Probe
            }
            State::HalfOpen | State::Open { .. } => BreakerDecision::Refused,
        }
    }

    /// Records that an admitted read succeeded.
    pub fn record_success(&self) {
        *self.state.lock() = State::Closed { failures: 0 };
    }

    /// Records that an admitted read failed.
    pub fn record_failure(&self, now: Instant) {
        let mut state = self.state.lock();
        let open = State::Open { until: now + self.settings.cooldown };
        *state = match *state {
            State::Closed { failures } if failures + 1 < self.settings.failures => {
                State::Closed { failures: failures + 1 }
            }
            State::Closed { .. } | State::HalfOpen => open,
            // A read that was admitted before the breaker opened does not extend the cooldown.
            open_already @ State::Open { .. } => open_already,
        };
    }

    /// Releases a probe that ended without an outcome; the next caller probes.
    pub fn release_probe(&self, now: Instant) {
        let mut state = self.state.lock();
        if matches!(*state, State::HalfOpen) {
            *state = State::Open { until: now };
        }
    }

    /// Returns the state.
    pub fn state(&self) -> BreakerState {
        match *self.state.lock() {
            State::Closed { .. } => BreakerState::Closed,
            State::HalfOpen => BreakerState::HalfOpen,
            State::Open { .. } => BreakerState::Open,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COOLDOWN: Duration = Duration::from_secs(1);

    fn breaker() -> Breaker {
        Breaker::new(BreakerSettings { failures: 3, cooldown: COOLDOWN })
    }

    fn opened(now: Instant) -> Breaker {
        let breaker = breaker();
        for _ in 0..3 {
            assert_eq!(breaker.admit(now), BreakerDecision::Pass);
            breaker.record_failure(now);
        }
        breaker
    }

    #[test]
    fn a_breaker_opens_only_after_consecutive_failures() {
        let (breaker, now) = (breaker(), Instant::now());
        for _ in 0..5 {
            breaker.record_failure(now);
            breaker.record_failure(now);
            breaker.record_success();
        }
        assert_eq!(breaker.admit(now), BreakerDecision::Pass);
        assert_eq!(opened(now).admit(now), BreakerDecision::Refused);
    }

    #[test]
    fn one_probe_is_admitted_after_the_cooldown_and_all_others_are_refused() {
        let now = Instant::now();
        let breaker = opened(now);
        assert_eq!(breaker.admit(now + COOLDOWN / 2), BreakerDecision::Refused);
        assert_eq!(breaker.admit(now + COOLDOWN), BreakerDecision::Probe);
        assert_eq!(breaker.admit(now + COOLDOWN * 9), BreakerDecision::Refused);
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
    }

    #[test]
    fn a_released_probe_is_admitted_to_the_next_caller() {
        let now = Instant::now();
        let breaker = opened(now);
        let later = now + COOLDOWN;
        assert_eq!(breaker.admit(later), BreakerDecision::Probe);
        breaker.release_probe(later);
        assert_eq!(breaker.admit(later), BreakerDecision::Probe);
        assert_eq!(breaker.admit(later), BreakerDecision::Refused);
        breaker.record_success();
        assert_eq!(breaker.admit(later), BreakerDecision::Pass);
    }

    #[test]
    fn a_successful_probe_closes_the_breaker_and_a_failed_one_restarts_the_cooldown() {
        let now = Instant::now();
        let breaker = opened(now);
        let later = now + COOLDOWN;
        assert_eq!(breaker.admit(later), BreakerDecision::Probe);
        breaker.record_failure(later);
        assert_eq!(breaker.admit(later + COOLDOWN / 2), BreakerDecision::Refused);
        assert_eq!(breaker.admit(later + COOLDOWN), BreakerDecision::Probe);
        breaker.record_success();
        assert_eq!(breaker.admit(later + COOLDOWN), BreakerDecision::Pass);
        assert_eq!(breaker.state(), BreakerState::Closed);
    }
}
