//! Reads and writes numbers as people of each language write them.
//!
//! A person's number is read in any notation, whatever the page's language: `12.5`, `12,5`, `١٢٫٥ ٪`. Numbers are
//! written with ASCII digits. `tests/vectors` holds this module and the page's script to the same results.

use crate::arithmetic::WHOLE;

/// Why a text is not a percentage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NumberFault {
    /// Not a number.
    NotANumber,
    /// Below 0 or above 100.
    Range,
    /// More than two decimals, by value: 33.330 has two.
    Decimals,
}

/// How a language writes numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NumberFormat {
    /// The decimal mark.
    pub decimal: String,
    /// The mark between groups of three digits.
    pub group: String,
    /// How many digits the first group needs before numbers are grouped.
    pub minimum_grouping: usize,
}

/// Reads a percentage in basis points. A blank text is 0. Takes time linear in the text.
///
/// # Errors
/// When the text is not a percentage from 0 to 100 with at most two decimals.
pub fn read(text: &str) -> Result<u16, NumberFault> {
    let number = text.trim_matches(is_around);
    if number.is_empty() {
        return Ok(0);
    }
    let (negative, number) = match number.strip_prefix(['-', '\u{2212}']) {
        Some(rest) => (true, rest),
        None => (false, number),
    };
    let (mut whole, mut hundredths): (u32, u32) = (0, 0);
    // How many decimals were read; `None` before the mark.
    let mut decimals: Option<u32> = None;
    let (mut any_digit, mut beyond_hundredths) = (false, false);
    for character in number.chars() {
        match (digit(character), decimals) {
            (Some(digit), None) => whole = whole.saturating_mul(10).saturating_add(digit),
            (Some(digit), Some(0)) => (hundredths, decimals) = (digit * 10, Some(1)),
            (Some(digit), Some(1)) => (hundredths, decimals) = (hundredths + digit, Some(2)),
            (Some(digit), Some(_)) => beyond_hundredths |= digit > 0,
            (None, None) if matches!(character, '.' | ',' | '\u{66b}') => {
                decimals = Some(0);
                continue;
            }
            (None, _) => return Err(NumberFault::NotANumber),
        }
        any_digit = true;
    }
    if !any_digit {
        return Err(NumberFault::NotANumber);
    }
    let value = whole.saturating_mul(100).saturating_add(hundredths);
    let is_zero = value == 0 && !beyond_hundredths;
    if (negative && !is_zero) || value > WHOLE || (value == WHOLE && beyond_hundredths) {
        return Err(NumberFault::Range);
    }
    if beyond_hundredths {
        return Err(NumberFault::Decimals);
    }
    u16::try_from(value).map_err(|_| NumberFault::Range)
}

/// Whether a text counts as an empty field.
pub fn is_blank(text: &str) -> bool {
    text.trim_matches(is_around).is_empty()
}

/// Spaces, percent signs and direction marks around a number.
fn is_around(character: char) -> bool {
    character.is_whitespace()
        || matches!(character, '%' | '\u{66a}' | '\u{200e}' | '\u{200f}' | '\u{61c}')
}

/// The value of an ASCII, Arabic-Indic or Persian digit.
fn digit(character: char) -> Option<u32> {
    let zero = match character {
        '0'..='9' => '0',
        '\u{660}'..='\u{669}' => '\u{660}',
        '\u{6f0}'..='\u{6f9}' => '\u{6f0}',
        _ => return None,
    };
    Some(u32::from(character) - u32::from(zero))
}

impl NumberFormat {
    /// Writes basis points as a percentage in the shortest form, without a percent sign: `35.5`, `40`, `0.05`.
    pub fn percent(&self, basis_points: u64) -> String {
        let text = self.decimals(basis_points, 2, 2);
        match text.split_once(self.decimal.as_str()) {
            Some((whole, fraction)) => match fraction.trim_end_matches('0') {
                "" => whole.to_owned(),
                fraction => format!("{whole}{}{fraction}", self.decimal),
            },
            None => text,
        }
    }

    /// Writes `units`, a number with `scale` decimals, rounded half up to `places` decimals.
    pub fn decimals(&self, units: u64, scale: u32, places: u32) -> String {
        let divisor = 10_u64.saturating_pow(scale.saturating_sub(places));
        let rounded =
            units / divisor + u64::from(units % divisor >= divisor.div_ceil(2) && divisor > 1);
        let unit = 10_u64.saturating_pow(places.min(scale));
        let whole = self.whole(rounded / unit);
        match usize::try_from(places.min(scale)) {
            Ok(width) if width > 0 => format!("{whole}{}{:0width$}", self.decimal, rounded % unit),
            _ => whole,
        }
    }

    /// Writes a whole number with groups of three digits.
    pub fn whole(&self, number: u64) -> String {
        let digits = number.to_string();
        if digits.len() < 3 + self.minimum_grouping {
            return digits;
        }
        let mut text = String::with_capacity(digits.len() * 2);
        for (index, digit) in digits.chars().enumerate() {
            if index > 0 && (digits.len() - index).is_multiple_of(3) {
                text.push_str(&self.group);
            }
            text.push(digit);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::language::Language;
    use crate::texts::Texts;

    #[test]
    fn numbers_are_read_in_every_notation() {
        for (text, value) in [
            ("", 0),
            (" ", 0),
            ("%", 0),
            ("40", 4_000),
            ("35.5", 3_550),
            ("35,5", 3_550),
            (" 35,50 % ", 3_550),
            ("\u{661}\u{662}\u{66b}\u{665}\u{a0}\u{66a}", 1_250),
            ("\u{6f1}\u{6f2}.\u{6f5}", 1_250),
            ("33.330", 3_333),
            (".5", 50),
            ("5.", 500),
            ("007", 700),
            ("100", 10_000),
            ("100.00", 10_000),
            ("-0", 0),
            ("\u{200f}7", 700),
        ] {
            assert_eq!(read(text), Ok(value), "{text:?}");
        }
        use NumberFault::{Decimals, NotANumber, Range};
        for (text, fault) in [
            ("x", NotANumber),
            ("1.000,5", NotANumber),
            ("1 000", NotANumber),
            ("+5", NotANumber),
            ("1e1", NotANumber),
            (".", NotANumber),
            ("-", NotANumber),
            ("--1", NotANumber),
            ("-1", Range),
            ("\u{2212}0,001", Range),
            ("101", Range),
            ("100.001", Range),
            ("99999999999999999999", Range),
            ("0.001", Decimals),
            ("12.345", Decimals),
        ] {
            assert_eq!(read(text), Err(fault), "{text:?}");
        }
    }

    #[test]
    fn numbers_are_written_as_each_language_groups_them() {
        let whole = |language: Language, number| Texts::of(language).numbers().whole(number);
        assert_eq!(whole(Language::En, 32_815), "32,815");
        assert_eq!(whole(Language::De, 1_234_567), "1.234.567");
        assert_eq!(whole(Language::Fr, 1_234), "1\u{202f}234");
        assert_eq!(
            (whole(Language::Es, 1_234), whole(Language::Es, 12_345)),
            ("1234".into(), "12.345".into())
        );
        let en = Texts::of(Language::En).numbers();
        assert_eq!(
            (en.decimals(151_348, 4, 1), en.decimals(151_348, 4, 2)),
            ("15.1".into(), "15.13".into())
        );
        assert_eq!(
            (en.decimals(999_500, 4, 1), en.decimals(5, 1, 0)),
            ("100.0".into(), "1".into())
        );
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(value in 0..=10_000_u16) {
            for language in Language::ALL {
                let text = Texts::of(language).numbers().percent(value.into());
                prop_assert_eq!(read(&text), Ok(value));
            }
        }

        #[test]
        fn reading_never_panics(text in ".{0,60}") {
            let _ = read(&text);
        }
    }
}
