//! Partitions whose log ends before their totals do. A broker that was killed says so for a moment after its start: it
//! tells an older high watermark until it has found its own end again. Only a log that stays short has lost something.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use schemas::PartitionId;
use tokio::time::Instant;

/// How long a log may take to be as long as it was.
const PATIENCE: Duration = Duration::from_secs(10);

/// Since when which partition's log is too short.
#[derive(Debug, Default)]
pub(super) struct Recovering(Mutex<BTreeMap<PartitionId, Instant>>);

impl Recovering {
    /// Whether a log that is too short may still recover.
    pub fn may_recover(&self, partition: PartitionId, now: Instant) -> bool {
        let mut short_since = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let since = *short_since.entry(partition).or_insert(now);
        now.saturating_duration_since(since) < PATIENCE
    }

    /// It is as long as it should be.
    pub fn recovered(&self, partition: PartitionId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&partition);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_partition_has_its_own_time_to_recover_and_all_of_it_again_the_next_time() {
        let (recovering, start) = (Recovering::default(), Instant::now());
        let (one, other) = (PartitionId(1), PartitionId(2));
        assert!(recovering.may_recover(one, start));
        assert!(recovering.may_recover(one, start + PATIENCE / 2));
        assert!(!recovering.may_recover(one, start + PATIENCE));
        assert!(recovering.may_recover(other, start + PATIENCE));
        recovering.recovered(one);
        assert!(recovering.may_recover(one, start + PATIENCE));
    }
}
