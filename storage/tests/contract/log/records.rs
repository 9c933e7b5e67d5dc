//! Builds the records that the suites append, and their expected form when read.

use schemas::{Offset, PartitionCount, PartitionId, PersonKey, partition_for};
use storage::log::{LogWriter, NewRecord};

use super::{PARTITIONS, Read};

/// Builds a record whose value contains its number. Some values are large, some are empty.
pub fn record(partition: u32, number: u64) -> NewRecord {
    let value = match number % 50 {
        0 => Vec::new(),
        1 => [&number.to_be_bytes()[..], &[7; 60_000]].concat(),
        _ => number.to_be_bytes().to_vec(),
    };
    NewRecord { key: key(PartitionId(partition), number), value }
}

/// Returns a key that belongs to the partition.
fn key(partition: PartitionId, number: u64) -> PersonKey {
    let count = PartitionCount::new(PARTITIONS.into()).unwrap();
    let mut keys = (0_u64..).map(|nonce| {
        let mut bytes = [0; PersonKey::BYTES];
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        bytes[8..].copy_from_slice(&nonce.to_be_bytes());
        PersonKey::from_bytes(bytes)
    });
    keys.find(|key| partition_for(key, count) == partition).unwrap()
}

/// Returns appended records as an owner receives them, starting at offset `first`.
pub fn as_read(records: &[NewRecord], first: u64) -> Vec<Read> {
    (first..)
        .zip(records)
        .map(|(offset, record)| {
            (Offset(offset), record.key.as_bytes().to_vec(), record.value.clone())
        })
        .collect()
}

pub async fn append(writer: &dyn LogWriter, records: &[NewRecord]) -> Vec<Offset> {
    let results = writer.append(records.to_vec()).await;
    assert_eq!(results.len(), records.len());
    results.into_iter().map(|result| result.unwrap().offset).collect()
}
