//! Partitions whose log ends before their totals do. A broker that was killed says so for a moment after its start: it
//! tells an older high watermark until it has found its own end again. Only a log that stays short has lost something.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use schemas::PartitionId;
use tokio::time::Instant;

/// How long a log may take to be as long as it was.
const PATIENCE: Duration = Duration::from_secs(10);
/// Not looked at for so long, because somebody else had it meanwhile, it is another time that it is too short.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60);

/// Since when which partition's log is too short.
#[derive(Debug, Default)]
pub(super) struct Recovering(Mutex<BTreeMap<PartitionId, Short>>);

#[derive(Debug, Clone, Copy)]
struct Short {
    since: Instant,
    looked_at: Instant,
}

impl Recovering {
    /// Whether a log that is too short may still recover.
    pub fn may_recover(&self, partition: PartitionId, now: Instant) -> bool {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let remembered = all
            .get(&partition)
            .copied()
            .filter(|short| now.saturating_duration_since(short.looked_at) < FORGOTTEN_AFTER);
        let since = remembered.map_or(now, |short| short.since);
        all.insert(partition, Short { since, looked_at: now });
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

    const ONE: PartitionId = PartitionId(1);

    #[test]
    fn each_partition_has_its_own_time_to_recover_and_all_of_it_again_the_next_time() {
        let (recovering, start) = (Recovering::default(), Instant::now());
        assert!(recovering.may_recover(ONE, start));
        assert!(recovering.may_recover(ONE, start + PATIENCE / 2));
        assert!(!recovering.may_recover(ONE, start + PATIENCE));
        assert!(recovering.may_recover(PartitionId(2), start + PATIENCE));
        recovering.recovered(ONE);
        assert!(recovering.may_recover(ONE, start + PATIENCE));
    }

    #[test]
    fn a_partition_that_somebody_else_had_meanwhile_has_all_its_time_again() {
        let (recovering, start) = (Recovering::default(), Instant::now());
        assert!(recovering.may_recover(ONE, start));
        assert!(recovering.may_recover(ONE, start + FORGOTTEN_AFTER));
        assert!(!recovering.may_recover(ONE, start + FORGOTTEN_AFTER + PATIENCE));
    }
}
