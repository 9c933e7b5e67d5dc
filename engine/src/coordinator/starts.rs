//! Pending start positions for the source: from where to read each partition, until the source has taken it. The source
//! looks between any two records, without a lock while nothing is pending.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use schemas::{PartitionId, Position};
use storage::log::StartPosition;

/// Whether the records that the source delivers are from an owner's start position on. Before, they are those of the
/// owner before it.
#[derive(Debug, Clone, Default)]
pub(super) struct Reading(Arc<AtomicBool>);

impl Reading {
    pub fn has_started(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Pending starts and pauses for the source, at most one per partition.
#[derive(Debug, Default)]
pub(super) struct Starts {
    any: AtomicBool,
    pending: Mutex<BTreeMap<PartitionId, Option<(Position, Reading)>>>,
}

impl Starts {
    /// Lets the source read a partition from a position, for an owner.
    pub fn start(&self, partition: PartitionId, from: Position, reading: Reading) {
        self.add(partition, Some((from, reading)));
    }

    /// Lets the source stop to read a partition.
    pub fn pause(&self, partition: PartitionId) {
        self.add(partition, None);
    }

    /// Drops what is pending for a partition that is no longer assigned.
    pub fn forget(&self, partition: PartitionId) {
        self.pending.lock().remove(&partition);
    }

    /// Takes everything pending. From now on the source delivers records from the start positions on.
    pub fn take(&self) -> Vec<(PartitionId, StartPosition)> {
        if !self.any.swap(false, Ordering::Acquire) {
            return Vec::new();
        }
        let start = |(partition, start)| match start {
            Some((position, Reading(started))) => {
                started.store(true, Ordering::Relaxed);
                (partition, StartPosition::At(position))
            }
            None => (partition, StartPosition::Paused),
        };
        std::mem::take(&mut *self.pending.lock()).into_iter().map(start).collect()
    }

    fn add(&self, partition: PartitionId, start: Option<(Position, Reading)>) {
        let mut pending = self.pending.lock();
        pending.insert(partition, start);
        self.any.store(true, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: PartitionId = PartitionId(1);

    #[test]
    fn an_owner_receives_records_once_the_source_knows_where_to_start() {
        let (starts, reading) = (Starts::default(), Reading::default());
        assert_eq!(starts.take(), []);
        starts.start(ONE, Position(7), reading.clone());
        assert!(!reading.has_started());
        assert_eq!(starts.take(), [(ONE, StartPosition::At(Position(7)))]);
        assert!(reading.has_started());
        assert_eq!(starts.take(), []);
    }

    #[test]
    fn the_latest_start_of_a_partition_replaces_the_earlier_one() {
        let (starts, former, next) = (Starts::default(), Reading::default(), Reading::default());
        starts.start(ONE, Position(7), former.clone());
        starts.pause(ONE);
        assert_eq!(starts.take(), [(ONE, StartPosition::Paused)]);
        starts.start(ONE, Position(5), next.clone());
        starts.take();
        assert_eq!((former.has_started(), next.has_started()), (false, true));
        starts.pause(ONE);
        starts.forget(ONE);
        assert_eq!(starts.take(), []);
    }
}
