//! The formats of `schemas/proto/`: the submission record and the person row. Also the partition of a key.

use prost::Message;

/// Categories of the default budget.
pub const DEFAULT_CATEGORIES: usize = 10;

/// `submission.proto`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct SubmissionRecord {
    /// 1.
    #[prost(uint32, tag = "1")]
    pub version: u32,
    /// The budget's id.
    #[prost(string, tag = "2")]
    pub budget: String,
    /// A UUID's 16 bytes.
    #[prost(bytes = "vec", tag = "3")]
    pub submission_id: Vec<u8>,
    /// Milliseconds since 1970.
    #[prost(uint64, tag = "4")]
    pub accepted_at_ms: u64,
    /// 1 allocate, 2 withdraw, 3 annul, 4 restore.
    #[prost(int32, tag = "5")]
    pub kind: i32,
    /// Shares in the budget's order.
    #[prost(uint32, repeated, tag = "6")]
    pub basis_points: Vec<u32>,
    /// No client has chosen the id.
    #[prost(bool, tag = "7")]
    pub generated_id: bool,
    /// Set if nobody has submitted the record: it closes or reopens its budget.
    #[prost(message, optional, tag = "8")]
    pub marker: Option<MarkerRecord>,
}

/// `Marker` of `submission.proto`.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct MarkerRecord {
    /// 1 close, 2 reopen.
    #[prost(int32, tag = "1")]
    pub kind: i32,
    /// Of two markers in a partition, the later one counts.
    #[prost(uint64, tag = "2")]
    pub revision: u64,
}

/// `person.proto`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct PersonState {
    /// The budget's id.
    #[prost(string, tag = "1")]
    pub budget: String,
    /// Offset of the record that produced this state.
    #[prost(uint64, tag = "2")]
    pub offset: u64,
    /// Empty once withdrawn.
    #[prost(uint32, repeated, tag = "3")]
    pub basis_points: Vec<u32>,
    /// Fingerprints of recent submission ids.
    #[prost(fixed64, repeated, tag = "4")]
    pub recent_submissions: Vec<u64>,
    /// The shares do not count.
    #[prost(bool, tag = "5")]
    pub annulled: bool,
}

/// Record kind of an allocation.
pub const ALLOCATE: i32 = 1;
/// Record kind of a withdrawal.
pub const WITHDRAW: i32 = 2;
/// Record kind that annuls a person.
pub const ANNUL: i32 = 3;
/// Record kind that restores a person.
pub const RESTORE: i32 = 4;

/// Marker kind of a close marker.
pub const CLOSE: i32 = 1;

/// Encodes the record of an allocation.
pub fn allocation_record(budget: &str, submission: u128, basis_points: Vec<u32>) -> Vec<u8> {
    SubmissionRecord {
        version: 1,
        budget: budget.to_owned(),
        submission_id: submission.to_be_bytes().to_vec(),
        accepted_at_ms: 1_795_000_000_000,
        kind: ALLOCATE,
        basis_points,
        generated_id: false,
        marker: None,
    }
    .encode_to_vec()
}

/// Encodes the record of an annulment, or of a restoration.
pub fn annulment_record(budget: &str, annulment: u128, kind: i32) -> Vec<u8> {
    SubmissionRecord {
        version: 1,
        budget: budget.to_owned(),
        submission_id: annulment.to_be_bytes().to_vec(),
        accepted_at_ms: 1_795_000_000_000,
        kind,
        basis_points: Vec::new(),
        generated_id: true,
        marker: None,
    }
    .encode_to_vec()
}

/// Mixes the bits of a number deterministically (splitmix64).
pub fn mix(number: u64) -> u64 {
    let mut bits = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// Mixes a number into 128 bits.
pub fn mix_128(number: u64) -> u128 {
    u128::from(mix(number)) << 64 | u128::from(mix(!number))
}

/// Generates shares that add up to 10,000 from a number.
pub fn shares(number: u64, categories: usize) -> Vec<u32> {
    let mut left = 10_000;
    let mut shares = Vec::with_capacity(categories);
    for index in 1..categories {
        let bits = mix(number.wrapping_mul(64).wrapping_add(index as u64));
        // A fifth of the shares are 0, as in real data.
        let share = if bits.is_multiple_of(5) { 0 } else { (bits >> 8) as u32 % (left / 3 + 1) };
        shares.push(share);
        left -= share;
    }
    shares.push(left);
    shares
}

/// The partition of a key, by Kafka's default partitioner.
pub fn partition_of(key: &[u8], partitions: u32) -> u32 {
    (murmur2(key) & 0x7fff_ffff) % partitions
}

fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut hash = 0x9747_b28c ^ data.len() as u32;
    let mut words = data.chunks_exact(4);
    for word in &mut words {
        let word = word.iter().rev().fold(0_u32, |word, byte| word << 8 | u32::from(*byte));
        let mixed = word.wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ (mixed ^ (mixed >> 24)).wrapping_mul(M);
    }
    if !words.remainder().is_empty() {
        for (index, byte) in words.remainder().iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * index);
        }
        hash = hash.wrapping_mul(M);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn murmur2_agrees_with_kafkas_java_client() {
        assert_eq!(murmur2(b"21") as i32, -973_932_308);
        assert_eq!(murmur2(b"a-little-bit-longer-string") as i32, -1_486_304_829);
    }

    #[test]
    fn shares_add_up_to_a_hundred_percent() {
        for number in 0..1_000 {
            assert_eq!(shares(number, 10).iter().sum::<u32>(), 10_000);
        }
    }
}
