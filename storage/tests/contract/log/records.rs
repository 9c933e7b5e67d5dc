//! The records that the suites append, and how they look when they are read.

use schemas::{Offset, PartitionCount, PartitionId, PersonKey, partition_for};
use storage::log::{LogWriter, NewRecord};

use super::{PARTITIONS, Read};

/// A record whose value says which it is. Some are large, one is empty.
pub fn record(partition: u32, number: u64) -> NewRecord {
    let value = match number % 50 {
        0 => Vec::new(),
        1 => [&number.to_be_bytes()[..], &[7; 60_000]].concat(),
        _ => number.to_be_bytes().to_vec(),
    };
    NewRecord { key: key(PartitionId(partition), number), value }
}

/// One that belongs to the partition.
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

/// What an owner sees of records that were appended from `first` on.
pub fn as_read(records: &[NewRecord], first: u64) -> Vec<Read> {
    (first..)
        .zip(records)
        .map(|(offset, record)| {
            (Offset(offset), record.key.as_bytes().to_vec(), record.value.clone())
        })
        .collect()
}

pub async fn append(writer: &dyn LogWriter, records: &[NewRecord]) -> Vec<Offset> {
    let answers = writer.append(records.to_vec()).await;
    assert_eq!(answers.len(), records.len());
    answers.into_iter().map(|answer| answer.unwrap().offset).collect()
}
