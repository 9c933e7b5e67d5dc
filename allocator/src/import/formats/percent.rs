//! Parses and formats percentages as plain decimals, digit by digit and never through a float.

use schemas::BASIS_POINTS_PER_PERSON;

/// Parses a plain decimal percentage such as `33.34`, `40` or `12.50`. An empty text is 0.
///
/// # Errors
/// What is expected, when the text is anything else.
pub fn parse_basis_points(text: &str) -> Result<u32, &'static str> {
    if text.is_empty() {
        return Ok(0);
    }
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) {
        return Err("is not a percentage such as 33.34");
    }
    let fraction = fraction.trim_end_matches('0');
    if fraction.len() > 2 {
        return Err("has more than two decimals");
    }
    // A number too long to parse is over 100 too.
    let percent: u64 = whole.parse().unwrap_or(u64::MAX);
    let hundredths: u64 = format!("{fraction:0<2}").parse().unwrap_or_default();
    let share = percent.saturating_mul(100).saturating_add(hundredths);
    if share > BASIS_POINTS_PER_PERSON {
        return Err("is more than 100");
    }
    // At most 10,000.
    Ok(share as u32)
}

/// Formats basis points as a percentage with two decimals.
pub fn format_percent(basis_points: u64) -> String {
    format!("{}.{:02}", basis_points / 100, basis_points % 100)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn plain_decimals_are_parsed_exactly() {
        let spellings = [
            ("", 0),
            ("0", 0),
            ("007", 700),
            ("33.3", 3330),
            ("33.34", 3334),
            ("0.29", 29),
            ("100.000", 10_000),
        ];
        for (text, expected) in spellings {
            assert_eq!(parse_basis_points(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn anything_else_is_rejected() {
        for text in [
            "-1",
            "+1",
            "1e2",
            "1.",
            ".5",
            "1,5",
            "1.2.3",
            "½",
            "NaN",
            "33.335",
            "100.01",
            "99999999999999999999999",
        ] {
            assert!(parse_basis_points(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_share_round_trips_through_its_text(share in 0..=10_000_u32) {
            prop_assert_eq!(parse_basis_points(&format_percent(u64::from(share))), Ok(share));
        }
    }
}
