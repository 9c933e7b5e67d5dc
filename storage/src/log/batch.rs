//! Records of one partition on their way from the source to the fold, packed into one buffer.

use schemas::{Offset, PartitionId, Position};

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
    /// Its place in the partition.
    pub offset: Offset,
    /// Its key; empty when it has none.
    pub key: &'a [u8],
    /// Its value; empty when it has none.
    pub value: &'a [u8],
}

impl RecordBatch {
    /// An empty batch for a partition.
    pub fn new(partition: PartitionId) -> Self {
        Self { partition, bytes: Vec::new(), entries: Vec::new() }
    }

    /// Whose records these are.
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

    /// How many records there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many bytes of keys and values there are. Below 4 GiB: sources close a batch long before.
    pub fn size_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The position after the last record.
    pub fn end(&self) -> Option<Position> {
        self.entries.last().map(|entry| entry.offset.next())
    }

    /// The records.
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
