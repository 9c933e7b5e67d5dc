//! Partitions, and the partitioner: murmur2 of the record key, compatible with Kafka's Java clients, so that producers
//! in any language choose the same partition.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::PersonKey;

/// The number of a partition, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PartitionId(pub u32);

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A partition count that is out of range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be between 1 and {max}, not {0}", max = PartitionCount::MAX)]
pub struct PartitionCountFault(u64);

/// The number of partitions of a log. It never changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u64")]
pub struct PartitionCount(u32);

impl TryFrom<u64> for PartitionCount {
    type Error = PartitionCountFault;

    fn try_from(count: u64) -> Result<Self, PartitionCountFault> {
        Self::new(count)
    }
}

impl PartitionCount {
    /// Maximum partitions of a log.
    pub const MAX: u32 = 1024;

    /// Checks a count.
    ///
    /// # Errors
    /// When the count is not between 1 and 1,024.
    pub fn new(count: u64) -> Result<Self, PartitionCountFault> {
        match u32::try_from(count) {
            Ok(small) if (1..=Self::MAX).contains(&small) => Ok(Self(small)),
            _ => Err(PartitionCountFault(count)),
        }
    }

    /// The count as a number.
    pub fn get(self) -> u32 {
        self.0
    }

    /// All partitions, in order.
    pub fn partitions(self) -> impl Iterator<Item = PartitionId> + Clone {
        (0..self.0).map(PartitionId)
    }
}

/// Returns the partition of a person's records.
pub fn partition_for(person: &PersonKey, count: PartitionCount) -> PartitionId {
    let positive = murmur2(person.as_bytes()) & 0x7fff_ffff;
    PartitionId(positive % count.0)
}

/// Same as `org.apache.kafka.common.utils.Utils.murmur2`.
fn murmur2(data: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    const R: u32 = 24;

    let mut h = SEED ^ (data.len() as u32);
    let (words, tail) = data.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k = (k ^ (k >> R)).wrapping_mul(M);
        h = h.wrapping_mul(M) ^ k;
    }
    if !tail.is_empty() {
        for (index, byte) in tail.iter().enumerate() {
            h ^= u32::from(*byte) << (8 * index);
        }
        h = h.wrapping_mul(M);
    }
    h = (h ^ (h >> 13)).wrapping_mul(M);
    h ^ (h >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Test vectors of Kafka's `UtilsTest.testMurmur2`.
    #[test]
    fn murmur2_agrees_with_kafkas_java_client() {
        let vectors: [(&[u8], i32); 6] = [
            (b"21", -973_932_308),
            (b"foobar", -790_332_482),
            (b"a-little-bit-long-string", -985_981_536),
            (b"a-little-bit-longer-string", -1_486_304_829),
            (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            (b"abc", 479_470_107),
        ];
        for (bytes, expected) in vectors {
            assert_eq!(murmur2(bytes) as i32, expected);
        }
    }
}
