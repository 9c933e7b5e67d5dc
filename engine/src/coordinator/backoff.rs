//! How long a partition waits before it is claimed again. Pure.

use std::time::Duration;

/// An owner that has run for this long was no failed attempt: the next one begins with the shortest delay.
const SETTLED_AFTER: Duration = Duration::from_secs(30);

/// Why a partition is claimed again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RetryCause {
    /// The log or the store did not answer.
    Unavailable,
    /// Another process has claimed the partition, which the group assigns to this one.
    Contended,
    /// The log ends before the totals do, and may recover.
    ShortLog,
    /// The generation was retired: the registry is about to name another one.
    Retired,
    /// The store lost commits that it had acknowledged: they are folded again.
    CommitsLost,
    /// The store lost person rows: people are replayed from the log.
    RowsLost,
    /// The people that were in memory before the claim do not match the totals: they are read after it.
    PreparedPeople,
    /// The log skipped records: they are read again.
    LogGap,
    /// The source could not read on from where it was.
    ReadFailed,
}

impl RetryCause {
    /// The label of the metric.
    pub fn label(self) -> &'static str {
        match self {
            Self::Unavailable => "unavailable",
            Self::Contended => "contended",
            Self::ShortLog => "short_log",
            Self::Retired => "retired",
            Self::CommitsLost => "commits_lost",
            Self::RowsLost => "rows_lost",
            Self::PreparedPeople => "prepared_people",
            Self::LogGap => "log_gap",
            Self::ReadFailed => "read_failed",
        }
    }

    /// The first and the longest delay.
    fn delays(self) -> (Duration, Duration) {
        let (first_ms, max_ms) = match self {
            Self::Unavailable => (200, 5_000),
            // Members learn of a revocation ten times a second: a former member does not claim its partitions back.
            Self::Contended => (1_000, 5_000),
            Self::ShortLog => (500, 500),
            // The registry is read twice a second. A claim of a retired partition halts it.
            Self::Retired => (5_000, 5_000),
            Self::CommitsLost
            | Self::RowsLost
            | Self::PreparedPeople
            | Self::LogGap
            | Self::ReadFailed => (100, 5_000),
        };
        (Duration::from_millis(first_ms), Duration::from_millis(max_ms))
    }
}

/// The delays of one partition's claims.
#[derive(Debug, Default)]
pub(super) struct Backoff(Duration);

impl Backoff {
    /// Returns the delay before the next claim. `owned_for` is how long an owner has run since the last one.
    pub fn next(&mut self, cause: RetryCause, owned_for: Duration) -> Duration {
        let (first, max) = cause.delays();
        let doubled = if owned_for >= SETTLED_AFTER { Duration::ZERO } else { self.0 * 2 };
        self.0 = doubled.clamp(first, max);
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn delays_double_up_to_the_longest() {
        let mut backoff = Backoff::default();
        let delays: Vec<_> = (0..7).map(|_| backoff.next(RetryCause::Unavailable, ms(0))).collect();
        assert_eq!(delays, [200, 400, 800, 1_600, 3_200, 5_000, 5_000].map(ms));
    }

    #[test]
    fn an_owner_that_has_run_for_long_resets_the_delay() {
        let mut backoff = Backoff::default();
        for _ in 0..5 {
            backoff.next(RetryCause::Contended, ms(0));
        }
        assert_eq!(backoff.next(RetryCause::Contended, SETTLED_AFTER), ms(1_000));
    }

    #[test]
    fn a_former_member_has_time_to_learn_that_the_partition_was_revoked() {
        let mut backoff = Backoff::default();
        assert!(backoff.next(RetryCause::Contended, ms(0)) >= ms(1_000));
        assert_eq!(backoff.next(RetryCause::ShortLog, ms(0)), ms(500));
    }
}
