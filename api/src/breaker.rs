//! The circuit breaker: leaves a tier alone that has failed several times in a row, and tries it again with one read
//! at a time. It only decides; what a failure is, and who makes the trial read, is the caller's.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// When a breaker opens, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerSettings {
    /// Failures in a row after which it opens.
    pub failures: u32,
    /// How long it stays open before a trial.
    pub cooldown: Duration,
}

/// What a caller may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Go ahead.
    Pass,
    /// Go ahead as the one trial: everyone else is refused until its outcome is told.
    Probe,
    /// Leave it alone.
    Refused,
}

/// How a breaker stands. The numbers are what the metric shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    /// Everyone passes.
    Closed = 0,
    /// One trial is on its way.
    HalfOpen = 1,
    /// Nobody passes.
    Open = 2,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Closed { failures: u32 },
    HalfOpen,
    Open { until: Instant },
}

/// A breaker. Every admission must be followed by [`succeeded`](Self::succeeded) or [`failed`](Self::failed), a trial
/// of which neither is known by [`given_back`](Self::given_back).
#[derive(Debug)]
pub struct Breaker {
    settings: BreakerSettings,
    state: Mutex<State>,
}

impl Breaker {
    /// Closed.
    pub fn new(settings: BreakerSettings) -> Self {
        Self { settings, state: Mutex::new(State::Closed { failures: 0 }) }
    }

    /// Asks to go ahead.
    pub fn admit(&self, now: Instant) -> Admission {
        let mut state = self.lock();
        match *state {
            State::Closed { .. } => Admission::Pass,
            State::Open { until } if now >= until => {
                *state = State::HalfOpen;
                Admission::Probe
            }
            State::HalfOpen | State::Open { .. } => Admission::Refused,
        }
    }

    /// What was admitted worked.
    pub fn succeeded(&self) {
        *self.lock() = State::Closed { failures: 0 };
    }

    /// What was admitted failed.
    pub fn failed(&self, now: Instant) {
        let mut state = self.lock();
        let open = State::Open { until: now + self.settings.cooldown };
        *state = match *state {
            State::Closed { failures } if failures + 1 < self.settings.failures => {
                State::Closed { failures: failures + 1 }
            }
            State::Closed { .. } | State::HalfOpen => open,
            // A read that was on its way when others opened it adds nothing.
            still_open @ State::Open { .. } => still_open,
        };
    }

    /// The trial came to no end: whoever asks next makes it.
    pub fn given_back(&self, now: Instant) {
        let mut state = self.lock();
        if matches!(*state, State::HalfOpen) {
            *state = State::Open { until: now };
        }
    }

    /// How it stands.
    pub fn state(&self) -> BreakerState {
        match *self.lock() {
            State::Closed { .. } => BreakerState::Closed,
            State::HalfOpen => BreakerState::HalfOpen,
            State::Open { .. } => BreakerState::Open,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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
            assert_eq!(breaker.admit(now), Admission::Pass);
            breaker.failed(now);
        }
        breaker
    }

    #[test]
    fn it_opens_after_failures_in_a_row_and_not_before() {
        let (breaker, now) = (breaker(), Instant::now());
        for _ in 0..5 {
            breaker.failed(now);
            breaker.failed(now);
            breaker.succeeded();
        }
        assert_eq!(breaker.admit(now), Admission::Pass);
        assert_eq!(opened(now).admit(now), Admission::Refused);
    }

    #[test]
    fn after_the_cooldown_one_probe_goes_and_all_others_are_refused() {
        let now = Instant::now();
        let breaker = opened(now);
        assert_eq!(breaker.admit(now + COOLDOWN / 2), Admission::Refused);
        assert_eq!(breaker.admit(now + COOLDOWN), Admission::Probe);
        assert_eq!(breaker.admit(now + COOLDOWN * 9), Admission::Refused);
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
    }

    #[test]
    fn a_probe_that_is_given_back_goes_to_the_next_who_asks() {
        let now = Instant::now();
        let breaker = opened(now);
        let later = now + COOLDOWN;
        assert_eq!(breaker.admit(later), Admission::Probe);
        breaker.given_back(later);
        assert_eq!(breaker.admit(later), Admission::Probe);
        assert_eq!(breaker.admit(later), Admission::Refused);
        breaker.succeeded();
        assert_eq!(breaker.admit(later), Admission::Pass);
    }

    #[test]
    fn a_good_probe_closes_it_and_a_bad_one_starts_the_cooldown_anew() {
        let now = Instant::now();
        let breaker = opened(now);
        let later = now + COOLDOWN;
        assert_eq!(breaker.admit(later), Admission::Probe);
        breaker.failed(later);
        assert_eq!(breaker.admit(later + COOLDOWN / 2), Admission::Refused);
        assert_eq!(breaker.admit(later + COOLDOWN), Admission::Probe);
        breaker.succeeded();
        assert_eq!(breaker.admit(later + COOLDOWN), Admission::Pass);
        assert_eq!(breaker.state(), BreakerState::Closed);
    }
}
