//! Converts the text of a JSON number from percent to basis points: digit by digit, never through a float.

use std::fmt;

/// 100 % in basis points.
const MAX_BASIS_POINTS: u16 = 10_000;

/// Why a number is not a percentage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PercentageFault {
    /// Below 0. In JSON, minus zero is 0.
    #[error("must not be negative")]
    Negative,
    /// Over 100.
    #[error("must be at most 100")]
    OverHundred,
    /// Not a whole number of basis points. The value counts, not its spelling: 33.330 has two decimals.
    #[error("must have at most two decimals")]
    Decimals,
}

/// Parses a well-formed JSON number. Takes time linear in the text, for any exponent.
///
/// # Errors
/// When the number is not a whole number of basis points from 0 to 10,000.
pub fn parse_basis_points(number: &str) -> Result<u16, PercentageFault> {
    match parse_plain_decimal(number) {
        Some(share) => Ok(share),
        None => parse_any_number(number),
    }
}

/// Parses the common case fast: a few digits with at most two decimals.
fn parse_plain_decimal(number: &str) -> Option<u16> {
    const MAX_BYTES: usize = "100.00".len();
    if number.len() > MAX_BYTES {
        return None;
    }
    let mut value: u32 = 0;
    let mut digits = 0;
    let mut whole_digits = None;
    for byte in number.bytes() {
        match byte {
            b'0'..=b'9' => {
                value = value * 10 + u32::from(byte - b'0');
                digits += 1;
            }
            b'.' if whole_digits.is_none() => whole_digits = Some(digits),
            _ => return None,
        }
    }
    let hundredths = match digits - whole_digits.unwrap_or(digits) {
        0 => value * 100,
        1 => value * 10,
        2 => value,
        _ => return None,
    };
    u16::try_from(hundredths).ok().filter(|share| *share <= MAX_BASIS_POINTS)
}

fn parse_any_number(number: &str) -> Result<u16, PercentageFault> {
    let (negative, number) = match number.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, number),
    };
    let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));

    // The value is `significant` × 10^`scale`, with no zero at either end of `significant`. Only its first four digits
    // are kept: a number with more is over 100 or not a whole number of basis points anyway.
    let mut significant: u32 = 0;
    let mut digits: i64 = 0;
    let mut zeros: i64 = 0;
    for digit in whole.bytes().chain(fraction.bytes()).map(|digit| digit.wrapping_sub(b'0')) {
        if digit == 0 {
            zeros += i64::from(digits > 0);
            continue;
        }
        digits += zeros + 1;
        if digits <= 4 {
            significant = significant * power_of_ten(zeros + 1) + u32::from(digit);
        }
        zeros = 0;
    }
    if digits == 0 {
        return Ok(0);
    }
    if negative {
        return Err(PercentageFault::Negative);
    }
    // Percent to basis points is two decimal places.
    let scale = parse_exponent(exponent) - fraction.len() as i64 + zeros + 2;
    if digits + scale > 5 {
        return Err(PercentageFault::OverHundred);
    }
    if scale < 0 {
        return Err(PercentageFault::Decimals);
    }
    // At most five digits in total, so `scale` is at most 4. Five significant digits are over 10,000.
    if digits > 4 {
        return Err(PercentageFault::OverHundred);
    }
    match u16::try_from(significant * power_of_ten(scale)) {
        Ok(share) if share <= MAX_BASIS_POINTS => Ok(share),
        _ => Err(PercentageFault::OverHundred),
    }
}

fn power_of_ten(exponent: i64) -> u32 {
    (0..exponent).fold(1, |power, _| power * 10)
}

/// Parses an exponent. Values beyond the length of any body are clamped, keeping their sign.
fn parse_exponent(text: &str) -> i64 {
    const MAX_EXPONENT: i64 = 1 << 40;
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let size = digits.bytes().fold(0, |value: i64, digit| {
        (value * 10 + i64::from(digit.wrapping_sub(b'0'))).min(MAX_EXPONENT)
    });
    if negative { -size } else { size }
}

/// Displays basis points as a percentage without trailing zeros.
pub(super) struct Percent(pub u64);

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.0 / 100, self.0 % 100);
        match rest {
            0 => write!(f, "{whole}"),
            _ if rest % 10 == 0 => write!(f, "{whole}.{}", rest / 10),
            _ => write!(f, "{whole}.{rest:02}"),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::PercentageFault::{Decimals, Negative, OverHundred};
    use super::*;
    use num_bigint::BigInt;
    use proptest::prelude::*;

    #[test]
    fn every_spelling_of_a_number_has_the_same_value() {
        let spellings = [
            ("0", 0),
            ("-0", 0),
            ("-0.000e7", 0),
            ("0e99999999999999999999", 0),
            ("33.33", 3333),
            ("33.3300000000000000000000000000000", 3333),
            ("1e2", 10_000),
            ("1E+2", 10_000),
            ("0.5e1", 500),
            ("10000e-2", 10_000),
            ("100.00", 10_000),
            ("0.01", 1),
            ("0.29", 29),
            ("57.3", 5730),
            ("4.35", 435),
            ("99.99", 9999),
            ("1000000000e-9", 100),
            ("0.0000001e7", 100),
        ];
        for (text, expected) in spellings {
            assert_eq!(parse_basis_points(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn invalid_percentages_are_rejected_with_their_fault() {
        let faults = [
            ("33.335", Decimals),
            ("0.001", Decimals),
            ("1e-400", Decimals),
            ("1e-99999999999999999999999", Decimals),
            ("99.999", Decimals),
            ("99.99999999999999999999999999999999", Decimals),
            ("100.01", OverHundred),
            ("101", OverHundred),
            ("1e400", OverHundred),
            ("1e99999999999999999999999", OverHundred),
            ("18446744073709551617", OverHundred),
            ("-1", Negative),
            ("-0.001", Negative),
            ("-1e400", Negative),
        ];
        for (text, expected) in faults {
            assert_eq!(parse_basis_points(text), Err(expected), "{text}");
        }
    }

    #[test]
    fn percentages_are_displayed_without_trailing_zeros() {
        for (basis_points, text) in
            [(9950, "99.5"), (10_000, "100"), (1, "0.01"), (10, "0.1"), (0, "0")]
        {
            assert_eq!(Percent(basis_points).to_string(), text);
        }
    }

    /// The reference: number × 100 = basis points, in arbitrary-precision integers.
    fn by_exact_arithmetic(
        negative: bool,
        whole: &str,
        fraction: &str,
        exponent: i32,
    ) -> Option<u16> {
        let mut numerator: BigInt = format!("{whole}{fraction}").parse().unwrap();
        if negative {
            numerator = -numerator;
        }
        let mut denominator = BigInt::from(10).pow(fraction.len() as u32);
        match u32::try_from(exponent) {
            Ok(up) => numerator *= BigInt::from(10).pow(up),
            Err(_) => denominator *= BigInt::from(10).pow(exponent.unsigned_abs()),
        }
        numerator *= 100;
        if &numerator % &denominator != BigInt::ZERO {
            return None;
        }
        let basis_points = numerator / denominator;
        let in_range = basis_points >= BigInt::ZERO && basis_points <= BigInt::from(10_000);
        in_range.then(|| u16::try_from(basis_points).unwrap())
    }

    fn number_parts() -> impl Strategy<Value = (bool, String, String, i32)> {
        let whole = prop_oneof![Just("0".to_owned()), "[1-9][0-9]{0,3}", "[1-9]0{0,8}"];
        let fraction = prop_oneof![Just(String::new()), "[0-9]{1,4}", "0{0,8}[0-9]{1,2}0{0,8}"];
        let exponent = prop_oneof![4 => Just(0), 4 => -8..8_i32, 1 => -450..450_i32];
        (proptest::bool::weighted(0.1), whole, fraction, exponent)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_000))]

        #[test]
        fn parsed_basis_points_equal_exact_arithmetic(
            (negative, whole, fraction, exponent) in number_parts(), plain in any::<bool>(),
        ) {
            let sign = if negative { "-" } else { "" };
            let point = if fraction.is_empty() { "" } else { "." };
            let exponent = if plain { 0 } else { exponent };
            let tail = if plain { String::new() } else { format!("e{exponent}") };
            let text = format!("{sign}{whole}{point}{fraction}{tail}");
            let expected = by_exact_arithmetic(negative, &whole, &fraction, exponent);
            prop_assert_eq!(parse_basis_points(&text).ok(), expected, "{}", text);
            prop_assert_eq!(parse_any_number(&text).ok(), expected, "{}", text);
        }

        #[test]
        fn no_text_panics_the_parser(text in ".{0,40}") {
            let _ = parse_basis_points(&text);
        }
    }
}
