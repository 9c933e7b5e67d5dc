//! When to try again: exponential backoff with jitter, no sooner than the server asks, not for ever.

use std::time::Duration;

/// How patient an import is with its server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// The longest first wait.
    pub first: Duration,
    /// The longest wait that is our own choice.
    pub longest: Duration,
    /// For how long one request is tried, waits included.
    pub patience: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            first: Duration::from_millis(100),
            longest: Duration::from_secs(5),
            patience: Duration::from_secs(120),
        }
    }
}

impl RetryPolicy {
    /// How long to wait after the failure number `failures` (from 1). `luck` is between 0 and 1: clients that failed
    /// together must not come back together.
    pub fn wait(&self, failures: u32, luck: f64, asked: Option<Duration>) -> Duration {
        let doublings = failures.saturating_sub(1).min(16);
        let ceiling = self.first.saturating_mul(1 << doublings).min(self.longest);
        let own = ceiling.mul_f64(0.5 + luck.clamp(0.0, 1.0) / 2.0);
        own.max(asked.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_wait_is_never_shorter_than_asked_and_its_own_part_is_bounded(
            failures in any::<u32>(), luck in 0.0..=1.0_f64, asked_ms in prop::option::of(0..100_000_u64),
        ) {
            let policy = RetryPolicy::default();
            let asked = asked_ms.map(Duration::from_millis);
            let wait = policy.wait(failures, luck, asked);
            prop_assert!(wait >= asked.unwrap_or_default());
            prop_assert!(wait <= policy.longest.max(asked.unwrap_or_default()));
        }
    }

    #[test]
    fn waits_double_until_the_longest() {
        let policy = RetryPolicy::default();
        let waits = [1, 2, 3, 7, 99].map(|failures| policy.wait(failures, 1.0, None).as_millis());
        assert_eq!(waits, [100, 200, 400, 5000, 5000]);
        assert_eq!(policy.wait(1, 0.0, None).as_millis(), 50);
    }
}
