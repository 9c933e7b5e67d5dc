//! The packed layout of an offset, a flag and shares in 64-bit words: 51 bits of offset, one bit that says whether the
//! person is annulled, then 14 bits for each share. Ten categories take three words, which makes a person's record as
//! long as a cache line.

use schemas::Offset;

use super::shares::Shares;

const OFFSET_BITS: u32 = 51;
const OFFSET_MASK: u64 = (1 << OFFSET_BITS) - 1;
const ANNULLED_BIT: u64 = 1 << OFFSET_BITS;
/// Bits in front of the shares.
const HEAD_BITS: u32 = OFFSET_BITS + 1;
const HEAD_MASK: u64 = OFFSET_MASK | ANNULLED_BIT;
/// At most 10,000 basis points.
const SHARE_BITS: u32 = 14;
const SHARE_MASK: u128 = (1 << SHARE_BITS) - 1;

/// The highest offset that fits. At a million records a second a partition reaches it in 71 years.
pub(super) const OFFSET_MAX: Offset = Offset(OFFSET_MASK);

/// Returns the number of words for `categories` shares.
pub(super) const fn words(categories: usize) -> usize {
    (HEAD_BITS as usize + categories * SHARE_BITS as usize).div_ceil(u64::BITS as usize)
}

/// What a packed record has in front of the shares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    /// Offset of the record that last changed the person.
    pub offset: Offset,
    /// Whether the person is annulled.
    pub annulled: bool,
}

impl Head {
    fn bits(self) -> u64 {
        (self.offset.0 & OFFSET_MASK) | if self.annulled { ANNULLED_BIT } else { 0 }
    }
}

/// Packs a head and shares into `words`. Missing shares become zeros.
pub(super) fn pack(words: &mut [u64], head: Head, shares: impl Iterator<Item = u16>) {
    words.fill(0);
    let (mut bits, mut filled) = (u128::from(head.bits()), HEAD_BITS);
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

/// Replaces the head and keeps the shares.
pub(super) fn set_head(words: &mut [u64], head: Head) {
    words[0] = (words[0] & !HEAD_MASK) | head.bits();
}

/// Unpacks the head.
pub(super) fn head(words: &[u64]) -> Head {
    let offset = Offset(words[0] & OFFSET_MASK);
    Head { offset, annulled: words[0] & ANNULLED_BIT != 0 }
}

/// Unpacks `categories` shares; [`Shares::NONE`] if all of them are zero.
pub(super) fn shares(words: &[u64], categories: usize) -> Shares {
    let (mut bits, mut filled) = (u128::from(words[0] >> HEAD_BITS), u64::BITS - HEAD_BITS);
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

    fn any_head() -> impl Strategy<Value = Head> {
        (0..=OFFSET_MAX.0, any::<bool>())
            .prop_map(|(offset, annulled)| Head { offset: Offset(offset), annulled })
    }

    proptest! {
        #[test]
        fn unpacking_returns_the_packed_head_and_shares(
            given_head in any_head(),
            later_head in any_head(),
            given in prop::collection::vec(0..=10_000_u16, 0..=MAX_CATEGORIES),
        ) {
            // Nonzero words: packing must overwrite them.
            let mut packed = vec![u64::MAX; words(given.len())];
            pack(&mut packed, given_head, given.iter().copied());
            prop_assert_eq!(head(&packed), given_head);
            set_head(&mut packed, later_head);
            prop_assert_eq!(head(&packed), later_head);
            let read = shares(&packed, given.len());
            if given.iter().any(|share| *share > 0) {
                prop_assert_eq!(read.iter().collect::<Vec<_>>(), given);
            } else {
                prop_assert!(!read.counts());
            }
        }

        #[test]
        fn a_withdrawn_person_has_a_head_and_no_shares(
            given in any_head(), categories in 0..=MAX_CATEGORIES,
        ) {
            let mut packed = vec![u64::MAX; words(categories)];
            pack(&mut packed, given, std::iter::empty());
            prop_assert_eq!(head(&packed), given);
            prop_assert!(!shares(&packed, categories).counts());
        }
    }

    #[test]
    fn ten_categories_take_three_words() {
        assert_eq!((words(0), words(10), words(11)), (1, 3, 4));
    }
}
