//! Decides how long a log may be shorter than its committed totals before it counts as damaged.
//!
//! A broker that was killed reports an older high watermark for a moment after its start. Only a log that stays short
//! has lost records. Pure: the caller passes the time.

use std::collections::BTreeMap;
use std::time::Duration;

use schemas::PartitionId;
use tokio::time::Instant;

/// How long a log may take to become as long as it was.
const RECOVERY_TIMEOUT: Duration = Duration::from_secs(10);
/// Age at which a failed check is forgotten. A log not checked for this long, because another process had the
/// partition, gets the whole time again.
const FORGET_AFTER: Duration = Duration::from_secs(60);

/// The logs found shorter than their totals. Kept beyond a revocation: the group may assign the partition again.
#[derive(Debug, Default)]
pub(super) struct ShortLogs(BTreeMap<PartitionId, ShortLog>);

#[derive(Debug, Clone, Copy)]
struct ShortLog {
    since: Instant,
    last_checked: Instant,
}

impl ShortLogs {
    /// Records that a log is too short, and returns whether it may still recover.
    pub fn may_recover(&mut self, partition: PartitionId, now: Instant) -> bool {
        let known = self
            .0
            .get(&partition)
            .filter(|short| now.saturating_duration_since(short.last_checked) < FORGET_AFTER);
        let since = known.map_or(now, |short| short.since);
        self.0.insert(partition, ShortLog { since, last_checked: now });
        now.saturating_duration_since(since) < RECOVERY_TIMEOUT
    }

    /// Records that a log reaches its totals.
    pub fn recovered(&mut self, partition: PartitionId) {
        self.0.remove(&partition);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: PartitionId = PartitionId(1);

    #[test]
    fn each_partition_has_the_whole_timeout_and_has_it_again_after_it_recovered() {
        let (mut short_logs, start) = (ShortLogs::default(), Instant::now());
        assert!(short_logs.may_recover(ONE, start));
        assert!(short_logs.may_recover(ONE, start + RECOVERY_TIMEOUT / 2));
        assert!(!short_logs.may_recover(ONE, start + RECOVERY_TIMEOUT));
        assert!(short_logs.may_recover(PartitionId(2), start + RECOVERY_TIMEOUT));
        short_logs.recovered(ONE);
        assert!(short_logs.may_recover(ONE, start + RECOVERY_TIMEOUT));
    }

    #[test]
    fn a_partition_that_another_process_had_meanwhile_has_the_whole_timeout_again() {
        let (mut short_logs, start) = (ShortLogs::default(), Instant::now());
        assert!(short_logs.may_recover(ONE, start));
        assert!(short_logs.may_recover(ONE, start + FORGET_AFTER));
        assert!(!short_logs.may_recover(ONE, start + FORGET_AFTER + RECOVERY_TIMEOUT));
    }
}
