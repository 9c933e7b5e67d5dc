//! The retry policy of an import: exponential backoff with jitter that honours `Retry-After`.

use std::time::Duration;

/// How long an import waits for its server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Maximum delay before the first retry.
    pub initial_delay: Duration,
    /// Maximum delay, unless the server asks for a longer one.
    pub max_delay: Duration,
    /// Time limit for one request, including all retries and delays.
    pub timeout: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            initial_delay: Duration::from_millis(100),
            max_delay: Duration::from_secs(5),
            timeout: Duration::from_secs(120),
        }
    }
}

impl RetryPolicy {
    /// The delay after the failure number `failures` (from 1).
    ///
    /// `jitter` is between 0 and 1 and spreads the retries of clients that failed together. `retry_after` is the
    /// minimum that the server asks for.
    pub fn delay(&self, failures: u32, jitter: f64, retry_after: Option<Duration>) -> Duration {
        let doublings = failures.saturating_sub(1).min(16);
        let ceiling = self.initial_delay.saturating_mul(1 << doublings).min(self.max_delay);
        let delay = ceiling.mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0);
        delay.max(retry_after.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_delay_is_bounded_and_never_shorter_than_retry_after(
            failures in any::<u32>(), jitter in 0.0..=1.0_f64, retry_after_ms in prop::option::of(0..100_000_u64),
        ) {
            let policy = RetryPolicy::default();
            let retry_after = retry_after_ms.map(Duration::from_millis);
            let delay = policy.delay(failures, jitter, retry_after);
            prop_assert!(delay >= retry_after.unwrap_or_default());
            prop_assert!(delay <= policy.max_delay.max(retry_after.unwrap_or_default()));
        }
    }

    #[test]
    fn delays_double_up_to_the_maximum() {
        let policy = RetryPolicy::default();
        let delays = [1, 2, 3, 7, 99].map(|failures| policy.delay(failures, 1.0, None).as_millis());
        assert_eq!(delays, [100, 200, 400, 5000, 5000]);
        assert_eq!(policy.delay(1, 0.0, None).as_millis(), 50);
    }
}
