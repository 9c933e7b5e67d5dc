//! Personal codes, printed on letters: a serial number and a keyed hash of it. The service stores none.
//!
//! A code has sixteen digits in groups of four, `0007-K3WX-9QTP-2M4R`: five for the serial number, ten for 50 bits of
//! the hash, one to check. The digits are those of Crockford's base 32, without I, L, O and U; when a code is read, I
//! and L count as 1 and O as 0. The check digit (Luhn, modulo 32) finds a single wrong digit and almost every swap of
//! neighbours.

use std::fmt;

use ring::hmac;
use schemas::{BudgetId, PersonSecret};
use subtle::ConstantTimeEq;

const DIGITS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const BITS_PER_DIGIT: usize = 5;
const SERIAL_DIGITS: usize = 5;
const HASH_DIGITS: usize = 10;
const CODE_DIGITS: usize = SERIAL_DIGITS + HASH_DIGITS + 1;
const GROUP: usize = 4;
/// Maximum length of a text that is read as a code: with a separator after each digit.
const MAX_TEXT_BYTES: usize = 2 * CODE_DIGITS;

/// The highest serial number.
pub const MAX_SERIAL: u32 = (1 << (SERIAL_DIGITS * BITS_PER_DIGIT)) - 1;

/// The number of a code, in its budget. Names the code's holder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Serial(u32);

impl Serial {
    /// Creates a serial number; `None` above [`MAX_SERIAL`].
    pub fn new(number: u32) -> Option<Self> {
        (number <= MAX_SERIAL).then_some(Self(number))
    }

    /// Parses a serial number as its code begins, the form in which sessions have it.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let digits = text.bytes().map(|byte| DIGITS.iter().position(|known| *known == byte));
        let digits: Option<Vec<u8>> =
            digits.map(|digit| digit.and_then(|digit| u8::try_from(digit).ok())).collect();
        digits.filter(|digits| digits.len() == SERIAL_DIGITS).map(|digits| Self::of_digits(&digits))
    }

    /// Returns the number.
    pub fn number(self) -> u32 {
        self.0
    }

    fn digits(self) -> [u8; SERIAL_DIGITS] {
        std::array::from_fn(|index| {
            digit(u64::from(self.0) >> ((SERIAL_DIGITS - 1 - index) * BITS_PER_DIGIT))
        })
    }

    fn of_digits(digits: &[u8]) -> Self {
        Self(digits.iter().fold(0, |number, digit| (number << BITS_PER_DIGIT) | u32::from(*digit)))
    }
}

impl fmt::Display for Serial {
    /// Writes the serial number as its code begins.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.digits().iter().try_for_each(|digit| write!(f, "{}", letter(*digit)))
    }
}

/// The key of one budget's codes.
#[derive(Clone)]
pub struct CodeKey(hmac::Key);

impl fmt::Debug for CodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CodeKey(hidden)")
    }
}

impl CodeKey {
    /// Derives the key of a budget's codes from the deployment's secret.
    pub fn new(person_secret: &PersonSecret, budget: &BudgetId) -> Self {
        // A budget id has no zero byte, so no two budgets have the same purpose.
        let secret = person_secret.derived_secret(&format!("codes\0{budget}"));
        Self(hmac::Key::new(hmac::HMAC_SHA256, &secret))
    }

    /// Makes the code of a serial number.
    pub fn code(&self, serial: Serial) -> String {
        let mut digits = [0; CODE_DIGITS];
        let (serial_digits, rest) = digits.split_at_mut(SERIAL_DIGITS);
        let (hash_digits, check) = rest.split_at_mut(HASH_DIGITS);
        serial_digits.copy_from_slice(&serial.digits());
        hash_digits.copy_from_slice(&self.hash(serial));
        check.fill(check_digit(&[&*serial_digits, &*hash_digits].concat()));
        let groups: Vec<String> = digits
            .chunks(GROUP)
            .map(|group| group.iter().map(|digit| letter(*digit)).collect())
            .collect();
        groups.join("-")
    }

    /// Returns the serial number of a code; `None` if this key has not made it.
    ///
    /// Takes as long for every text: neither time nor answer says what is wrong with a code.
    pub fn verify(&self, text: &str) -> Option<Serial> {
        self.verify_unless(text, |_| false)
    }

    /// Returns the serial number of a code; `None` if this key has not made it, or it is revoked.
    ///
    /// `is_revoked` is asked for every text: neither time nor answer says whether a code was right once.
    pub fn verify_unless(
        &self,
        text: &str,
        is_revoked: impl FnOnce(Serial) -> bool,
    ) -> Option<Serial> {
        let read = read_digits(text);
        let digits = read.unwrap_or_default();
        let (serial, rest) = digits.split_at(SERIAL_DIGITS);
        let (hash, check) = rest.split_at(HASH_DIGITS);
        let serial = Serial::of_digits(serial);
        let is_right = hash.ct_eq(&self.hash(serial))
            & check.ct_eq(&[check_digit(digits.get(..CODE_DIGITS - 1).unwrap_or_default())]);
        let is_revoked = is_revoked(serial);
        (bool::from(is_right) & read.is_some() & !is_revoked).then_some(serial)
    }

    fn hash(&self, serial: Serial) -> [u8; HASH_DIGITS] {
        let tag = hmac::sign(&self.0, &serial.0.to_be_bytes());
        let mut first = [0; 8];
        first.copy_from_slice(&tag.as_ref()[..8]);
        let bits = u64::from_be_bytes(first);
        std::array::from_fn(|index| digit(bits >> (64 - (index + 1) * BITS_PER_DIGIT)))
    }
}

/// Reads the digits of a code, without its separators.
fn read_digits(text: &str) -> Option<[u8; CODE_DIGITS]> {
    if text.len() > MAX_TEXT_BYTES {
        return None;
    }
    let mut digits = [0; CODE_DIGITS];
    let mut slots = digits.iter_mut();
    for byte in text.bytes().filter(|byte| *byte != b'-' && !byte.is_ascii_whitespace()) {
        let byte = match byte.to_ascii_uppercase() {
            b'I' | b'L' => b'1',
            b'O' => b'0',
            other => other,
        };
        let digit = DIGITS.iter().position(|known| *known == byte)?;
        *slots.next()? = u8::try_from(digit).ok()?;
    }
    slots.next().is_none().then_some(digits)
}

/// Computes the check digit (Luhn, modulo 32): every second digit from the right counts twice.
fn check_digit(digits: &[u8]) -> u8 {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(index, digit)| {
            let weighted = u32::from(*digit) * if index % 2 == 0 { 2 } else { 1 };
            weighted / 32 + weighted % 32
        })
        .sum();
    digit(u64::from((32 - sum % 32) % 32))
}

/// Returns the lowest five bits.
fn digit(bits: u64) -> u8 {
    u8::try_from(bits & 31).unwrap_or_default()
}

fn letter(digit: u8) -> char {
    DIGITS.get(usize::from(digit)).map_or('0', |letter| char::from(*letter))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(budget: &str) -> CodeKey {
        let person_secret = PersonSecret::new(&[1; 32]).unwrap();
        CodeKey::new(&person_secret, &BudgetId::parse(budget).unwrap())
    }

    #[test]
    fn codes_stay_the_same_since_they_are_on_paper() {
        let codes = [0, 7, MAX_SERIAL].map(|serial| key("parks").code(Serial(serial)));
        assert_eq!(codes, ["0000-0HRS-9ZBB-QFJG", "0000-7B4Q-4ZT5-3X7P", "ZZZZ-ZZTJ-M0F1-SKM8"]);
    }

    #[test]
    fn a_code_is_read_as_people_write_it() {
        let code = key("parks").code(Serial(1));
        let written = code.to_lowercase().replace('-', " ").replace('0', "o").replace('1', "l");
        for text in [code.as_str(), &written, &code.replace('-', ""), &format!(" {code}\n")] {
            assert_eq!(key("parks").verify(text), Some(Serial(1)), "{text}");
        }
    }

    #[test]
    fn other_texts_are_no_codes() {
        let code = key("parks").code(Serial(1));
        let longer = format!("{code}0");
        let spaced = format!("{code}{}", " ".repeat(64));
        for text in
            ["", "-", "0000-0000-0000-0000", &longer, &code[1..], &spaced, "UUUU-UUUU-UUUU-UUUU"]
        {
            assert_eq!(key("parks").verify(text), None, "{text}");
        }
        assert_eq!(key("roads").verify(&code), None, "a code of another budget");
        assert_eq!(Serial::new(MAX_SERIAL + 1), None);
    }

    proptest! {
        #[test]
        fn every_code_is_verified_and_no_changed_one(
            serial in 0..=MAX_SERIAL, index in 0..CODE_DIGITS, change in 1_u8..32,
        ) {
            let key = key("parks");
            let code = key.code(Serial(serial));
            prop_assert_eq!(key.verify(&code), Some(Serial(serial)));
            prop_assert_eq!(key.verify_unless(&code, |asked| asked == Serial(serial)), None);
            prop_assert_eq!(Serial::parse(&Serial(serial).to_string()), Some(Serial(serial)));
            prop_assert!(code.starts_with(&Serial(serial).to_string()[..GROUP]));
            let mut digits = read_digits(&code).unwrap();
            digits[index] = (digits[index] + change) % 32;
            let (all, check) = digits.split_at(CODE_DIGITS - 1);
            prop_assert_ne!(check[0], check_digit(all), "the check digit finds one wrong digit");
            let changed: String = digits.iter().map(|digit| letter(*digit)).collect();
            prop_assert_eq!(key.verify(&changed), None);
        }
    }
}
