//! The buffered records of the partitions that are read. The work after each poll grows with the partitions that have
//! records, not with all partitions: of many, most have none.

use std::collections::{BTreeMap, BTreeSet};

use schemas::PartitionId;

use crate::log::{Record, RecordBatch};

/// The buffers of all partitions that are read.
#[derive(Default)]
pub(super) struct Buffers {
    buffers: BTreeMap<PartitionId, Buffer>,
    /// The partitions with records to deliver.
    filled: BTreeSet<PartitionId>,
    /// The partitions with an undelivered batch.
    blocked: BTreeSet<PartitionId>,
}

/// The buffered records of one partition.
struct Buffer {
    batch: RecordBatch,
    /// A batch that the owner's queue had no capacity for; the partition is paused for it.
    undelivered: Option<RecordBatch>,
}

impl Buffers {
    /// Begins to buffer records of a partition. Those of an earlier start are dropped.
    pub fn start(&mut self, partition: PartitionId) {
        self.remove(partition);
        let buffer = Buffer { batch: RecordBatch::new(partition), undelivered: None };
        self.buffers.insert(partition, buffer);
    }

    /// Drops the records of a partition that is no longer read.
    pub fn remove(&mut self, partition: PartitionId) {
        self.buffers.remove(&partition);
        self.filled.remove(&partition);
        self.blocked.remove(&partition);
    }

    /// Buffers a record, unless its partition is not read. Returns whether the batch is full.
    pub fn push(&mut self, partition: PartitionId, record: Record<'_>) -> bool {
        let Some(buffer) = self.buffers.get_mut(&partition) else { return false };
        if buffer.batch.is_empty() {
            self.filled.insert(partition);
        }
        buffer.batch.push(record);
        buffer.batch.is_full()
    }

    /// The partitions with records to deliver.
    pub fn filled(&self) -> Vec<PartitionId> {
        self.filled.iter().copied().collect()
    }

    /// Whether a batch could not be delivered.
    pub fn has_undelivered(&self) -> bool {
        !self.blocked.is_empty()
    }

    /// Takes the batch of a partition that could not be delivered.
    pub fn take_undelivered(&mut self, partition: PartitionId) -> Option<RecordBatch> {
        if !self.blocked.remove(&partition) {
            return None;
        }
        let buffer = self.buffers.get_mut(&partition)?;
        let undelivered = buffer.undelivered.take();
        if buffer.batch.is_empty() {
            self.filled.remove(&partition);
        }
        undelivered
    }

    /// Takes the batch of a partition if it has records.
    pub fn take_batch(&mut self, partition: PartitionId) -> Option<RecordBatch> {
        let buffer = self.buffers.get_mut(&partition)?;
        if buffer.batch.is_empty() {
            return None;
        }
        self.filled.remove(&partition);
        Some(std::mem::replace(&mut buffer.batch, RecordBatch::new(partition)))
    }

    /// Keeps a batch that could not be delivered.
    pub fn keep_undelivered(&mut self, partition: PartitionId, batch: RecordBatch) {
        if let Some(buffer) = self.buffers.get_mut(&partition) {
            buffer.undelivered = Some(batch);
            self.filled.insert(partition);
            self.blocked.insert(partition);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use schemas::Offset;

    use super::*;

    const ONE: PartitionId = PartitionId(1);
    const TWO: PartitionId = PartitionId(2);

    fn record(offset: u64) -> Record<'static> {
        Record { offset: Offset(offset), key: b"k", value: b"v" }
    }

    fn offsets(batch: &RecordBatch) -> Vec<u64> {
        batch.iter().map(|record| record.offset.0).collect()
    }

    #[test]
    fn only_partitions_with_records_are_looked_through() {
        let mut buffers = Buffers::default();
        (0..1_024).for_each(|partition| buffers.start(PartitionId(partition)));
        assert_eq!(buffers.filled(), []);
        buffers.push(TWO, record(7));
        buffers.push(TWO, record(8));
        assert_eq!(buffers.filled(), [TWO]);
        assert_eq!(offsets(&buffers.take_batch(TWO).unwrap()), [7, 8]);
        assert_eq!((buffers.filled(), buffers.take_batch(TWO).is_none()), (vec![], true));
    }

    #[test]
    fn a_batch_that_could_not_be_delivered_comes_before_later_records() {
        let mut buffers = Buffers::default();
        buffers.start(ONE);
        buffers.push(ONE, record(1));
        let batch = buffers.take_batch(ONE).unwrap();
        assert!(!buffers.has_undelivered());
        buffers.keep_undelivered(ONE, batch);
        buffers.push(ONE, record(2));
        assert!(buffers.has_undelivered());
        assert_eq!(offsets(&buffers.take_undelivered(ONE).unwrap()), [1]);
        assert_eq!((buffers.has_undelivered(), buffers.filled()), (false, vec![ONE]));
        assert!(buffers.take_undelivered(ONE).is_none());
        assert_eq!(offsets(&buffers.take_batch(ONE).unwrap()), [2]);
    }

    #[test]
    fn a_partition_that_is_not_read_buffers_nothing() {
        let mut buffers = Buffers::default();
        buffers.push(ONE, record(1));
        assert_eq!(buffers.filled(), []);
        buffers.start(ONE);
        buffers.push(ONE, record(2));
        let batch = buffers.take_batch(ONE).unwrap();
        buffers.keep_undelivered(ONE, batch);
        buffers.remove(ONE);
        assert_eq!((buffers.has_undelivered(), buffers.filled()), (false, vec![]));
        buffers.start(ONE);
        assert!(buffers.take_undelivered(ONE).is_none() && buffers.take_batch(ONE).is_none());
    }
}
