//! The packed layout of an offset and shares in 64-bit words: 52 bits of offset, then 14 bits for each share. Ten
//! categories take three words, which makes a person's record as long as a cache line.

use schemas::Offset;

use super::shares::Shares;

const OFFSET_BITS: u32 = 52;
const OFFSET_MASK: u64 = (1 << OFFSET_BITS) - 1;
/// At most 10,000 basis points.
const SHARE_BITS: u32 = 14;
const SHARE_MASK: u128 = (1 << SHARE_BITS) - 1;

/// The highest offset that fits. At a million records a second a partition reaches it in 142 years.
pub(super) const OFFSET_MAX: Offset = Offset(OFFSET_MASK);

/// Returns the number of words for `categories` shares.
pub(super) const fn words(categories: usize) -> usize {
    (OFFSET_BITS as usize + categories * SHARE_BITS as usize).div_ceil(u64::BITS as usize)
}

/// Packs an offset and shares into `words`. Missing shares become zeros.
pub(super) fn pack(words: &mut [u64], offset: Offset, shares: impl Iterator<Item = u16>) {
    words.fill(0);
    let (mut bits, mut filled) = (u128::from(offset.0 & OFFSET_MASK), OFFSET_BITS);
    let mut rest = words.iter_mut();
    for share in shares {
        bits |= u128::from(share) << filled;
        filled += SHARE_BITS;
        if filled >= u64::BITS
            && let Some(word) = rest.next()
        {
            *word = bits as u64;
            bits >>= u64::BITS;
            filled -= u64::BITS;
        }
    }
    if let Some(word) = rest.next() {
        *word = bits as u64;
    }
}

/// Unpacks the offset.
pub(super) fn offset(words: &[u64]) -> Offset {
    Offset(words[0] & OFFSET_MASK)
}

/// Unpacks `categories` shares; [`Shares::NONE`] if all of them are zero.
pub(super) fn shares(words: &[u64], categories: usize) -> Shares {
    let (mut bits, mut filled) = (u128::from(words[0] >> OFFSET_BITS), u64::BITS - OFFSET_BITS);
    let (mut shares, mut any) = (Shares::NONE, 0);
    let mut rest = words[1..].iter();
    for _ in 0..categories {
        if filled < SHARE_BITS
            && let Some(word) = rest.next()
        {
            bits |= u128::from(*word) << filled;
            filled += u64::BITS;
        }
        let share = (bits & SHARE_MASK) as u16;
        bits >>= SHARE_BITS;
        filled -= SHARE_BITS;
        any |= share;
        shares.push(share);
    }
    if any == 0 { Shares::NONE } else { shares }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use schemas::MAX_CATEGORIES;

    use super::*;

    proptest! {
        #[test]
        fn unpacking_returns_the_packed_offset_and_shares(
            at in 0..=OFFSET_MAX.0,
            given in prop::collection::vec(0..=10_000_u16, 0..=MAX_CATEGORIES),
        ) {
            // Nonzero words: packing must overwrite them.
            let mut packed = vec![u64::MAX; words(given.len())];
            pack(&mut packed, Offset(at), given.iter().copied());
            let read = shares(&packed, given.len());
            prop_assert_eq!(offset(&packed), Offset(at));
            if given.iter().any(|share| *share > 0) {
                prop_assert_eq!(read.iter().collect::<Vec<_>>(), given);
            } else {
                prop_assert!(!read.counts());
            }
        }

        #[test]
        fn a_withdrawn_person_has_an_offset_and_no_shares(
            at in 0..=OFFSET_MAX.0, categories in 0..=MAX_CATEGORIES,
        ) {
            let mut packed = vec![u64::MAX; words(categories)];
            pack(&mut packed, Offset(at), std::iter::empty());
            prop_assert_eq!(offset(&packed), Offset(at));
            prop_assert!(!shares(&packed, categories).counts());
        }
    }

    #[test]
    fn ten_categories_take_three_words() {
        assert_eq!((words(0), words(10), words(11)), (1, 3, 4));
    }
}
