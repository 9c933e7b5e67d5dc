//! A batch of one partition's records, packed into one buffer.

use schemas::{Offset, PartitionId, Position};

const MAX_RECORDS: usize = 2_000;
const MAX_BYTES: usize = 1 << 20;

/// Records of one partition, in order.
#[derive(Debug, Clone)]
pub struct RecordBatch {
    partition: PartitionId,
    bytes: Vec<u8>,
    entries: Vec<Entry>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    offset: Offset,
    key_end: u32,
    value_end: u32,
}

/// One record, borrowed from its batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// The record's offset in the partition.
    pub offset: Offset,
    /// The record's key; empty if there is none.
    pub key: &'a [u8],
    /// The record's value; empty if there is none.
    pub value: &'a [u8],
}

impl RecordBatch {
    /// Creates an empty batch of a partition.
    pub fn new(partition: PartitionId) -> Self {
        Self { partition, bytes: Vec::new(), entries: Vec::new() }
    }

    /// Returns the partition of the records.
    pub fn partition(&self) -> PartitionId {
        self.partition
    }

    /// Adds the next record.
    pub fn push(&mut self, record: Record<'_>) {
        self.bytes.extend_from_slice(record.key);
        let key_end = self.bytes.len() as u32;
        self.bytes.extend_from_slice(record.value);
        let value_end = self.bytes.len() as u32;
        self.entries.push(Entry { offset: record.offset, key_end, value_end });
    }

    /// Returns the number of records.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns whether the batch has no records.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns whether the batch should be delivered before another record is added.
    pub(super) fn is_full(&self) -> bool {
        self.len() >= MAX_RECORDS || self.size_bytes() >= MAX_BYTES
    }

    /// Returns the total length of keys and values. Less than 4 GiB: sources close a batch long before that.
    pub fn size_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Returns the position after the last record.
    pub fn end(&self) -> Option<Position> {
        self.entries.last().map(|entry| entry.offset.next())
    }

    /// Iterates over the records.
    pub fn iter(&self) -> impl Iterator<Item = Record<'_>> {
        let mut start = 0;
        self.entries.iter().map(move |entry| {
            let (key_end, value_end) = (entry.key_end as usize, entry.value_end as usize);
            let record = Record {
                offset: entry.offset,
                key: &self.bytes[start..key_end],
                value: &self.bytes[key_end..value_end],
            };
            start = value_end;
            record
        })
    }
}
