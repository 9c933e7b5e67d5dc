//! Computes averages and medians in integers and prints them as exact decimals, without floating point.

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use schemas::{DISTRIBUTION_BINS, average_ten_thousandths, median_tenths};

/// A fixed-point decimal number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decimal {
    /// The value times 10^`decimals`.
    units: u128,
    decimals: usize,
    /// Decimals that are printed even when they are zero.
    min_decimals: usize,
}

impl std::fmt::Display for Decimal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let digits = format!("{:0width$}", self.units, width = self.decimals + 1);
        let (whole, fraction) = digits.split_at(digits.len() - self.decimals);
        let trimmed = fraction.trim_end_matches('0').len().max(self.min_decimals);
        let fraction = fraction.get(..trimmed).unwrap_or(fraction);
        f.write_str(whole)?;
        if fraction.is_empty() { Ok(()) } else { write!(f, ".{fraction}") }
    }
}

impl Serialize for Decimal {
    /// Serializes a JSON number with exactly these digits.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        RawValue::from_string(self.to_string())
            .map_err(serde::ser::Error::custom)?
            .serialize(serializer)
    }
}

/// Computes the average share in percent, rounded half up to four decimals; 0.0 without people.
pub fn average_percent(total_basis_points: u64, people: u64) -> Decimal {
    let units = average_ten_thousandths(total_basis_points, people).into();
    Decimal { units, decimals: 4, min_decimals: 1 }
}

/// Computes the median of the people's whole percents; 0.0 without people.
///
/// With an even number of people, the mean of the two middle values.
pub fn median_percent(people_by_percent: &[u64; DISTRIBUTION_BINS]) -> Decimal {
    let units = median_tenths(people_by_percent).into();
    Decimal { units, decimals: 1, min_decimals: 1 }
}

/// Converts one person's share to percent: 3,550 becomes 35.5, 4,000 becomes 40.
pub fn percent(basis_points: u16) -> Decimal {
    Decimal { units: basis_points.into(), decimals: 2, min_decimals: 0 }
}

#[cfg(test)]
mod tests {
    use num_bigint::BigUint;
    use proptest::prelude::*;

    use super::*;

    /// Parses a printed number into ten-thousandths.
    fn ten_thousandths(text: &str) -> BigUint {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        assert!((1..=4).contains(&fraction.len()), "one to four decimals: {text}");
        format!("{whole}{fraction:0<4}").parse().unwrap_or_default()
    }

    proptest! {
        #[test]
        fn averages_are_rounded_half_up_to_four_decimals(total: u64, people in 1_u64..) {
            let printed = ten_thousandths(&average_percent(total, people).to_string());
            // printed - 1/2 <= total × 100 / people < printed + 1/2, without a division.
            let exact = BigUint::from(total) * 200_u32;
            let people = BigUint::from(people);
            prop_assert!(&printed * 2_u32 * &people <= &exact + &people);
            prop_assert!(exact + &people < (printed + 1_u32) * 2_u32 * people);
        }

        #[test]
        fn the_median_equals_that_of_the_sorted_percents(
            mut people in prop::collection::vec(0..DISTRIBUTION_BINS, 1..60),
        ) {
            let mut bins = [0; DISTRIBUTION_BINS];
            for percent in &people {
                bins[*percent] += 1;
            }
            people.sort_unstable();
            let middle = people.len() / 2;
            let twice = if people.len() % 2 == 1 {
                people[middle] * 2
            } else {
                people[middle - 1] + people[middle]
            };
            let half = if twice % 2 == 1 { "5" } else { "0" };
            prop_assert_eq!(median_percent(&bins).to_string(), format!("{}.{half}", twice / 2));
        }

        #[test]
        fn a_printed_share_parses_to_the_same_basis_points(basis_points in 0..=10_000_u16) {
            let text = percent(basis_points).to_string();
            prop_assert!(!text.contains('.') || !text.ends_with(['.', '0']));
            let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
            let back: u16 = format!("{whole}{fraction:0<2}").parse().unwrap_or(u16::MAX);
            prop_assert_eq!(back, basis_points);
        }
    }

    #[test]
    fn known_values_print_as_in_the_contract() {
        assert_eq!(average_percent(49_664_889, 32_815).to_string(), "15.1348");
        assert_eq!(average_percent(0, 0).to_string(), "0.0");
        assert_eq!(average_percent(10_000, 1).to_string(), "100.0");
        assert_eq!(average_percent(10_000, 3).to_string(), "33.3333");
        assert_eq!(average_percent(20_000, 3).to_string(), "66.6667");
        // 100 / 800 / 100 is 0.00125 percent: half goes up.
        assert_eq!(average_percent(100, 800).to_string(), "0.0013");
        assert_eq!(median_percent(&[0; DISTRIBUTION_BINS]).to_string(), "0.0");
        assert_eq!(percent(3_550).to_string(), "35.5");
        assert_eq!(percent(4_000).to_string(), "40");
        assert_eq!(percent(3).to_string(), "0.03");
    }
}
