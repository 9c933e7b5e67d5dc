//! Digests of the people of a budget in a partition: which rows exist, and what the rows contain besides shares.
//!
//! The digests are committed with the totals, and say which rows belong to them. Sums of shares cannot say so: the
//! differences of several damaged rows may cancel out, and a row without shares is in no sum. The offset of a row
//! identifies its content, since offsets are unique in a partition and a row is a function of the log up to its offset.
//!
//! In memory the offset does not suffice. If a newer record is replayed over an old row, the offset is right, but the
//! row lacks what the records in between would have left: their submission ids, or that the person is annulled. The
//! digest of the contents finds such a row.

use crate::{Offset, PersonKey, SubmissionFingerprint};

/// Wrapping sum over all rows, also of people who have withdrawn or are annulled, of a mix of person and offset.
///
/// Finds damage, and no forgery: whoever may write rows may write totals as well. Part of the stored format.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PeopleDigest(u64);

impl PeopleDigest {
    /// The digest of nobody.
    pub const NOBODY: Self = Self(0);

    /// Creates the digest that [`to_bits`](Self::to_bits) returned.
    pub fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Returns the digest as it is stored.
    pub fn to_bits(self) -> u64 {
        self.0
    }

    /// Adds a person's row.
    pub fn add(&mut self, person: &PersonKey, offset: Offset) {
        self.0 = self.0.wrapping_add(mix(person, offset));
    }

    /// Removes a row that was added before.
    pub fn remove(&mut self, person: &PersonKey, offset: Offset) {
        self.0 = self.0.wrapping_sub(mix(person, offset));
    }

    /// Adds that a person is annulled.
    pub fn add_annulled(&mut self, person: &PersonKey) {
        self.add(person, ANNULLED);
    }

    /// Removes that a person is annulled.
    pub fn remove_annulled(&mut self, person: &PersonKey) {
        self.remove(person, ANNULLED);
    }

    /// Adds a submission id that a person's row remembers.
    pub fn add_submission(&mut self, person: &PersonKey, id: SubmissionFingerprint) {
        self.add(person, Offset(id.0));
    }

    /// Removes a submission id that was added before.
    pub fn remove_submission(&mut self, person: &PersonKey, id: SubmissionFingerprint) {
        self.remove(person, Offset(id.0));
    }
}

/// In the place of a submission id, of which none is zero.
const ANNULLED: Offset = Offset(0);

/// Mixes all bits of a key, which is the output of a keyed hash, and of an offset. Two multiplications: the fold does
/// it for every record.
fn mix(person: &PersonKey, offset: Offset) -> u64 {
    // Odd numbers without a pattern: digits of pi.
    const HIGH: u64 = 0x243f_6a88_85a3_08d3;
    const LOW: u64 = 0x1319_8a2e_0370_7345;
    let key = u128::from_le_bytes(*person.as_bytes());
    let (high, low) = ((key >> u64::BITS) as u64, key as u64);
    folded_multiply(folded_multiply(high ^ HIGH, offset.0 ^ LOW) ^ low, HIGH)
}

/// Multiplies to 128 bits and folds these into 64.
fn folded_multiply(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product >> u64::BITS) as u64 ^ product as u64
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn key(number: u128) -> PersonKey {
        // As a keyed hash, whose bits are all different from one person to the next.
        PersonKey::from_bytes(
            number.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835).to_le_bytes(),
        )
    }

    fn digest(rows: &[(u128, u64)]) -> PeopleDigest {
        let mut digest = PeopleDigest::NOBODY;
        rows.iter().for_each(|(person, offset)| digest.add(&key(*person), Offset(*offset)));
        digest
    }

    #[test]
    fn the_mix_is_part_of_the_stored_format() {
        let mixed = mix(&PersonKey::from_bytes([7; 16]), Offset(42));
        assert_eq!(mixed, 0x6d37_6e4a_f085_df26);
    }

    #[test]
    fn no_two_of_many_rows_have_the_same_mix() {
        let mixes =
            (0..300).flat_map(|person| (0..300).map(move |at| mix(&key(person), Offset(at))));
        assert_eq!(mixes.collect::<BTreeSet<_>>().len(), 300 * 300);
    }

    proptest! {
        #[test]
        fn the_digest_depends_on_the_rows_and_not_on_their_order(
            rows in prop::collection::btree_map(1..1_000_u128, 0..1_000_u64, 2..40),
            removed in any::<prop::sample::Index>(),
        ) {
            let rows: Vec<_> = rows.into_iter().collect();
            let reversed: Vec<_> = rows.iter().rev().copied().collect();
            prop_assert_eq!(digest(&rows), digest(&reversed));
            let (person, offset) = rows[removed.index(rows.len())];
            let mut without = digest(&rows);
            without.remove(&key(person), Offset(offset));
            prop_assert_ne!(without, digest(&rows));
            // An older row of two people, whose shares may have been exchanged.
            let mut swapped = rows.clone();
            (swapped[0].1, swapped[1].1) = (rows[1].1 + 1_000, rows[0].1 + 1_000);
            prop_assert_ne!(digest(&swapped), digest(&rows));
            without.add(&key(person), Offset(offset));
            prop_assert_eq!(without, digest(&rows));
        }
    }
}
