//! Which worker scans the jobs in which second: the one whose process has the partition that the second belongs to.
//!
//! All jobs are in one partition of the store. If every worker scanned it every second, its load would grow with the
//! number of processes. So the consumer group, which assigns each partition to one process, also decides who scans, and
//! no worker has to know of another. Two clocks that differ cost a second without a scan, or with two.

use std::collections::BTreeSet;

use engine::coordinator::ActiveGeneration;
use schemas::{PartitionCount, PartitionId};
use tokio::sync::watch;

/// 2^64 divided by the golden ratio: its multiples fill the range evenly, however long the series is.
const GOLDEN_STEP: u64 = 0x9E37_79B9_7F4A_7C15;

/// The seconds in which a worker scans the jobs.
pub struct ScanTurns(Option<Assignment>);

/// The partitions that this process has, of those of the active generation.
struct Assignment {
    assigned: watch::Receiver<BTreeSet<PartitionId>>,
    active: watch::Receiver<ActiveGeneration>,
}

impl ScanTurns {
    /// Returns the turns of a worker that shares them with those of all other processes.
    pub fn shared(
        assigned: watch::Receiver<BTreeSet<PartitionId>>,
        active: watch::Receiver<ActiveGeneration>,
    ) -> Self {
        Self(Some(Assignment { assigned, active }))
    }

    /// Returns the turns of the only worker.
    pub fn every_second() -> Self {
        Self(None)
    }

    /// Whether this worker scans in this second.
    pub(super) fn includes(&self, now_ms: u64) -> bool {
        self.0.as_ref().is_none_or(|Assignment { assigned, active }| {
            let partition = partition_of(now_ms / 1_000, active.borrow().log.partitions);
            assigned.borrow().contains(&partition)
        })
    }
}

/// Returns the partition that a second belongs to. Neighbouring seconds belong to partitions far apart, so that a
/// process with a range of them has its turns at even distances.
fn partition_of(second: u64, count: PartitionCount) -> PartitionId {
    let share = u128::from(second.wrapping_mul(GOLDEN_STEP));
    PartitionId(((share * u128::from(count.get())) >> 64) as u32)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use schemas::{LogRef, Term};

    use super::*;

    /// Workers of processes that have `shares` of the partitions, in ranges.
    fn workers(shares: &[u32]) -> Vec<ScanTurns> {
        let count = PartitionCount::new(shares.iter().sum::<u32>().into()).unwrap();
        let log = LogRef::first("submissions", count);
        let mut partitions = count.partitions();
        let assigned =
            shares.iter().map(|share| partitions.by_ref().take(*share as usize).collect());
        assigned
            .collect::<Vec<_>>()
            .into_iter()
            .map(|assigned| {
                let active = ActiveGeneration { term: Term::FIRST, log: log.clone() };
                ScanTurns::shared(watch::channel(assigned).1, watch::channel(active).1)
            })
            .collect()
    }

    proptest! {
        #[test]
        fn each_second_is_the_turn_of_one_worker_however_many_there_are(
            shares in proptest::collection::vec(1..40_u32, 1..25),
            second in 0..4_000_000_000_u64,
        ) {
            let workers = workers(&shares);
            let scanning = workers.iter().filter(|turns| turns.includes(second * 1_000));
            prop_assert_eq!(scanning.count(), 1);
        }

        #[test]
        fn a_third_of_the_partitions_has_a_turn_at_least_every_eight_seconds(
            each in 1..341_u32,
            begin in 0..4_000_000_000_u64,
        ) {
            for turns in workers(&[each; 3]) {
                prop_assert!((begin..begin + 8).any(|second| turns.includes(second * 1_000)));
            }
        }
    }

    #[test]
    fn a_process_without_partitions_has_no_turn_and_the_only_worker_has_all() {
        let idle = &workers(&[12, 0])[1];
        assert!((0..10_000).all(|second| !idle.includes(second * 1_000)));
        assert!((0..100).all(|second| ScanTurns::every_second().includes(second * 1_000)));
    }
}
