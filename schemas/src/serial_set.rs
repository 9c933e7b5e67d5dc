//! A set of serial numbers of personal codes, as sorted ranges: `1-500,712,90000-90999`.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// Serial numbers as ranges that are sorted, do not overlap, and do not adjoin.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SerialSet(Vec<RangeInclusive<u32>>);

/// The text is not a list of serial numbers and ranges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected serial numbers and ranges, such as 7,12-30")]
pub struct SerialSetFault;

impl SerialSet {
    /// Whether the set has the serial number.
    pub fn contains(&self, serial: u32) -> bool {
        let after = self.0.partition_point(|range| *range.start() <= serial);
        after > 0 && self.0.get(after - 1).is_some_and(|range| range.contains(&serial))
    }

    /// Whether the set has every serial number of another one.
    pub fn includes(&self, other: &Self) -> bool {
        other.0.iter().all(|range| {
            let after = self.0.partition_point(|known| known.start() <= range.start());
            after > 0 && self.0.get(after - 1).is_some_and(|known| range.end() <= known.end())
        })
    }

    /// Adds the serial numbers of another set.
    pub fn extend(&mut self, other: &Self) {
        *self = self.0.iter().chain(&other.0).cloned().collect();
    }

    /// Returns how many serial numbers the set has.
    pub fn count(&self) -> u64 {
        self.0.iter().map(|range| u64::from(range.end() - range.start()) + 1).sum()
    }

    /// Returns the ranges, in order.
    pub fn ranges(&self) -> &[RangeInclusive<u32>] {
        &self.0
    }

    /// Returns the highest serial number.
    pub fn highest(&self) -> Option<u32> {
        self.0.last().map(|range| *range.end())
    }
}

impl FromIterator<RangeInclusive<u32>> for SerialSet {
    /// Collects ranges in any order. Empty ones add nothing.
    fn from_iter<I: IntoIterator<Item = RangeInclusive<u32>>>(ranges: I) -> Self {
        let mut ranges: Vec<_> = ranges.into_iter().filter(|range| !range.is_empty()).collect();
        ranges.sort_unstable_by_key(|range| *range.start());
        let mut merged: Vec<RangeInclusive<u32>> = Vec::with_capacity(ranges.len());
        for range in ranges {
            match merged.last_mut() {
                Some(last) if *range.start() <= last.end().saturating_add(1) => {
                    *last = *last.start()..=*last.end().max(range.end());
                }
                _ => merged.push(range),
            }
        }
        Self(merged)
    }
}

impl fmt::Display for SerialSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, range) in self.0.iter().enumerate() {
            let separator = if index > 0 { "," } else { "" };
            match (range.start(), range.end()) {
                (start, end) if start == end => write!(f, "{separator}{start}")?,
                (start, end) => write!(f, "{separator}{start}-{end}")?,
            }
        }
        Ok(())
    }
}

impl FromStr for SerialSet {
    type Err = SerialSetFault;

    /// Parses a list in any order; the empty text is the empty set.
    fn from_str(text: &str) -> Result<Self, SerialSetFault> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        text.split(',').map(parse_range).collect()
    }
}

fn parse_range(text: &str) -> Result<RangeInclusive<u32>, SerialSetFault> {
    let number = |text: &str| text.trim().parse::<u32>().map_err(|_| SerialSetFault);
    let (start, end) = text.split_once('-').unwrap_or((text, text));
    let range = number(start)?..=number(end)?;
    if range.is_empty() { Err(SerialSetFault) } else { Ok(range) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn set(text: &str) -> SerialSet {
        text.parse().unwrap()
    }

    #[test]
    fn ranges_are_sorted_and_merged() {
        for (text, expected) in [
            ("", ""),
            ("7", "7"),
            ("9,7,8", "7-9"),
            ("1-5, 3-9, 20", "1-9,20"),
            ("1-9,2-3,10", "1-10"),
            ("4294967295,4294967294", "4294967294-4294967295"),
        ] {
            assert_eq!(set(text).to_string(), expected, "{text}");
        }
        for text in [",", "1,", "x", "-1", "5-3", "1-2-3", "4294967296", "0x1"] {
            assert_eq!(text.parse::<SerialSet>(), Err(SerialSetFault), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_set_is_the_set_of_its_numbers(
            one in prop::collection::vec((0..200_u32, 0..9_u32), 0..20),
            two in prop::collection::vec((0..200_u32, 0..9_u32), 0..20),
        ) {
            let ranges = |list: &[(u32, u32)]| -> Vec<_> {
                list.iter().map(|(start, more)| *start..=start + more).collect()
            };
            let numbers = |list: &[(u32, u32)]| -> BTreeSet<u32> {
                ranges(list).into_iter().flatten().collect()
            };
            let (mut set, other): (SerialSet, SerialSet) =
                (ranges(&one).into_iter().collect(), ranges(&two).into_iter().collect());
            prop_assert_eq!(set.includes(&other), numbers(&one).is_superset(&numbers(&two)));
            set.extend(&other);
            let expected: BTreeSet<u32> = numbers(&one).union(&numbers(&two)).copied().collect();
            for serial in 0..250 {
                prop_assert_eq!(set.contains(serial), expected.contains(&serial));
            }
            prop_assert_eq!(set.count(), expected.len() as u64);
            prop_assert_eq!(set.highest(), expected.last().copied());
            prop_assert_eq!(set.to_string().parse::<SerialSet>().unwrap(), set);
        }
    }
}
