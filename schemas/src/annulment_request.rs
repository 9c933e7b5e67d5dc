//! What an administrator asks for: which people of a budget are annulled, and why.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{AnnulmentId, BallotDigest, BudgetId, NetworkDigest, PersonKey};

/// Maximum number of people that one request names. Its job is a row that every worker reads each second.
pub const MAX_NAMED_PEOPLE: usize = 200;
/// Maximum number of people that a stored request names: earlier releases allowed as many.
const MAX_STORED_PEOPLE: usize = 1_000;
/// Maximum length of a reason, in bytes.
const REASON_MAX_BYTES: usize = 200;
/// Hexadecimal digits of a person key.
const PERSON_KEY_DIGITS: usize = 2 * PersonKey::BYTES;

/// A request to annul people of a budget.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnnulmentRequest {
    /// Identifies the annulment, of which the request may be a part.
    pub id: AnnulmentId,
    /// The budget.
    pub budget: BudgetId,
    /// Which people.
    pub selection: AnnulmentSelection,
    /// Why, for the operators' list.
    pub reason: AnnulmentReason,
    /// Only computes what would change.
    pub dry_run: bool,
    /// Which part of the annulment this is.
    #[serde(default, skip_serializing_if = "AnnulmentPart::is_whole")]
    pub part: AnnulmentPart,
}

/// Which part of an annulment a request is: more people than one request may name are several parts, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnnulmentPart {
    /// Number of the part, from 0.
    pub number: u32,
    /// Whether no other part follows.
    pub is_last: bool,
}

impl AnnulmentPart {
    fn is_whole(&self) -> bool {
        *self == Self::default()
    }
}

impl Default for AnnulmentPart {
    /// Returns the only part.
    fn default() -> Self {
        Self { number: 0, is_last: true }
    }
}

/// Which people an annulment concerns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "snake_case")]
pub enum AnnulmentSelection {
    /// These people.
    Persons {
        /// Their keys.
        persons: PersonKeys,
    },
    /// People whom a job has named that has ended: their keys are not kept.
    ErasedPersons {
        /// How many.
        people: u64,
    },
    /// Whoever submitted from a network in a time span.
    Network {
        /// The network.
        #[serde(with = "digits")]
        network: NetworkDigest,
        /// When.
        #[serde(flatten)]
        span: SignalSpan,
    },
    /// Whoever submitted the same allocation in a time span.
    Ballot {
        /// The allocation.
        #[serde(with = "digits")]
        ballot: BallotDigest,
        /// When.
        #[serde(flatten)]
        span: SignalSpan,
    },
}

impl AnnulmentSelection {
    /// Returns the selection with a number in place of the keys of people.
    pub fn without_person_keys(&self) -> Self {
        match self {
            Self::Persons { persons } => Self::ErasedPersons { people: persons.len() as u64 },
            others => others.clone(),
        }
    }
}

impl fmt::Display for AnnulmentSelection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Persons { persons } => write!(f, "{} named", persons.len()),
            Self::ErasedPersons { people } => write!(f, "{people} named"),
            Self::Network { network, .. } => write!(f, "network {network}"),
            Self::Ballot { ballot, .. } => write!(f, "ballot {ballot}"),
        }
    }
}

/// A digest in JSON: its hexadecimal digits.
pub(crate) mod digits {
    use std::fmt::Display;

    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::{BallotDigest, NetworkDigest};

    pub trait FromDigits: Sized {
        fn from_digits(text: &str) -> Option<Self>;
    }

    impl FromDigits for NetworkDigest {
        fn from_digits(text: &str) -> Option<Self> {
            Self::parse(text)
        }
    }

    impl FromDigits for BallotDigest {
        fn from_digits(text: &str) -> Option<Self> {
            Self::parse(text)
        }
    }

    pub fn serialize<S: Serializer>(
        digest: &impl Display,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(digest)
    }

    pub fn deserialize<'de, T: FromDigits, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<T, D::Error> {
        let text = String::deserialize(deserializer)?;
        T::from_digits(&text).ok_or_else(|| D::Error::custom("not the digits of a digest"))
    }
}

/// A time span in which signals are selected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "UncheckedSpan")]
pub struct SignalSpan {
    from_ms: u64,
    until_ms: u64,
}

#[derive(Deserialize)]
struct UncheckedSpan {
    from_ms: u64,
    until_ms: u64,
}

/// Why two times are no span.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be later than the beginning")]
pub struct SignalSpanFault;

impl SignalSpan {
    /// Creates a span from a time up to another, which is outside; in milliseconds since 1970.
    ///
    /// # Errors
    /// When it is empty.
    pub fn new(from_ms: u64, until_ms: u64) -> Result<Self, SignalSpanFault> {
        if from_ms < until_ms { Ok(Self { from_ms, until_ms }) } else { Err(SignalSpanFault) }
    }

    /// The first millisecond inside, since 1970.
    pub fn from_ms(self) -> u64 {
        self.from_ms
    }

    /// The first millisecond behind, since 1970.
    pub fn until_ms(self) -> u64 {
        self.until_ms
    }
}

impl TryFrom<UncheckedSpan> for SignalSpan {
    type Error = SignalSpanFault;

    fn try_from(span: UncheckedSpan) -> Result<Self, SignalSpanFault> {
        Self::new(span.from_ms, span.until_ms)
    }
}

/// Why people are annulled, in an administrator's words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AnnulmentReason(String);

/// Why a text is no reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AnnulmentReasonFault {
    /// It says nothing.
    #[error("must not be empty")]
    Empty,
    /// It is too long.
    #[error("must be at most {REASON_MAX_BYTES} bytes")]
    TooLong,
    /// It has a control character.
    #[error("must not contain control characters")]
    Control,
}

impl AnnulmentReason {
    /// Parses a reason.
    ///
    /// # Errors
    /// When it is empty or too long, or has control characters.
    pub fn parse(text: &str) -> Result<Self, AnnulmentReasonFault> {
        if text.len() > REASON_MAX_BYTES {
            return Err(AnnulmentReasonFault::TooLong);
        }
        if text.trim().is_empty() {
            return Err(AnnulmentReasonFault::Empty);
        }
        if text.chars().any(char::is_control) {
            return Err(AnnulmentReasonFault::Control);
        }
        Ok(Self(text.to_owned()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for AnnulmentReason {
    type Error = AnnulmentReasonFault;

    fn try_from(text: String) -> Result<Self, AnnulmentReasonFault> {
        Self::parse(&text)
    }
}

impl From<AnnulmentReason> for String {
    fn from(reason: AnnulmentReason) -> Self {
        reason.0
    }
}

impl fmt::Display for AnnulmentReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Keys of different people, in order: from one to [`MAX_NAMED_PEOPLE`]. In JSON, their digits without separators.
///
/// A request that an earlier release has stored may have up to `MAX_STORED_PEOPLE`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PersonKeys(Vec<PersonKey>);

/// Why keys are not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PersonKeysFault {
    /// There is none.
    #[error("must not be empty")]
    Empty,
    /// There are too many.
    #[error("must be at most {MAX_NAMED_PEOPLE} people")]
    TooMany,
    /// A text is no key.
    #[error("must be {PERSON_KEY_DIGITS} hexadecimal digits")]
    Digits,
}

impl PersonKeys {
    /// Sorts keys, and drops repeated ones.
    ///
    /// # Errors
    /// When none is left, or too many are.
    pub fn new(keys: Vec<PersonKey>) -> Result<Self, PersonKeysFault> {
        Self::at_most(MAX_NAMED_PEOPLE, keys)
    }

    fn at_most(max_people: usize, mut keys: Vec<PersonKey>) -> Result<Self, PersonKeysFault> {
        keys.sort_unstable();
        keys.dedup();
        match keys.len() {
            0 => Err(PersonKeysFault::Empty),
            people if people <= max_people => Ok(Self(keys)),
            _ => Err(PersonKeysFault::TooMany),
        }
    }

    /// Parses one key in hexadecimal.
    ///
    /// # Errors
    /// When the text is not exactly the digits of a key.
    pub fn parse_key(text: &str) -> Result<PersonKey, PersonKeysFault> {
        let is_key = text.len() == PERSON_KEY_DIGITS && text.bytes().all(|b| b.is_ascii_hexdigit());
        // Without this check, a sign would be accepted.
        let number = is_key.then(|| u128::from_str_radix(text, 16).ok()).flatten();
        let number = number.ok_or(PersonKeysFault::Digits)?;
        Ok(PersonKey::from_bytes(number.to_be_bytes()))
    }

    /// The keys in order.
    pub fn as_slice(&self) -> &[PersonKey] {
        &self.0
    }

    /// The number of people, at least 1.
    #[expect(clippy::len_without_is_empty, reason = "there is always one")]
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

impl TryFrom<String> for PersonKeys {
    type Error = PersonKeysFault;

    fn try_from(text: String) -> Result<Self, PersonKeysFault> {
        if text.len() > MAX_STORED_PEOPLE * PERSON_KEY_DIGITS {
            return Err(PersonKeysFault::TooMany);
        }
        let parse = |digits: &[u8]| Self::parse_key(&String::from_utf8_lossy(digits));
        let keys: Result<_, _> = text.as_bytes().chunks(PERSON_KEY_DIGITS).map(parse).collect();
        Self::at_most(MAX_STORED_PEOPLE, keys?)
    }
}

impl From<PersonKeys> for String {
    fn from(keys: PersonKeys) -> Self {
        keys.0.iter().map(|key| format!("{:032x}", u128::from_be_bytes(*key.as_bytes()))).collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn key(number: u128) -> PersonKey {
        PersonKey::from_bytes(number.to_be_bytes())
    }

    #[test]
    fn keys_are_sorted_unique_and_bounded_and_survive_json() {
        let keys = PersonKeys::new(vec![key(7), key(1), key(7)]).unwrap();
        assert_eq!(keys.as_slice(), [key(1), key(7)]);
        let json = serde_json::to_string(&keys).unwrap();
        assert_eq!(json.len(), 2 * 32 + 2);
        assert_eq!(serde_json::from_str::<PersonKeys>(&json).unwrap(), keys);
        let many = |count: u128| (0..count).map(key).collect::<Vec<_>>();
        let full = PersonKeys::new(many(200)).unwrap();
        assert_eq!(PersonKeys::try_from(String::from(full.clone())), Ok(full));
        assert_eq!(PersonKeys::new(many(201)), Err(PersonKeysFault::TooMany));
        assert_eq!(PersonKeys::new(Vec::new()), Err(PersonKeysFault::Empty));
        assert_eq!(PersonKeys::try_from("0".repeat(33)), Err(PersonKeysFault::Digits));
        assert_eq!(PersonKeys::try_from("é".repeat(16)), Err(PersonKeysFault::Digits));
    }

    #[test]
    fn jobs_that_earlier_releases_stored_with_a_thousand_people_are_still_read() {
        let stored = |people: u128| (0..people).map(|it| format!("{it:032x}")).collect::<String>();
        assert_eq!(PersonKeys::try_from(stored(1_000)).map(|keys| keys.len()), Ok(1_000));
        assert_eq!(PersonKeys::try_from(stored(1_001)), Err(PersonKeysFault::TooMany));
    }

    #[test]
    fn a_key_is_exactly_its_digits() {
        let digits = "00ff00ff00ff00ff00ff00ff00ff00FF";
        assert_eq!(PersonKeys::parse_key(digits).unwrap().as_bytes()[..2], [0, 255]);
        for wrong in ["", "0", &digits[1..], &format!("+{}", &digits[1..]), &format!("{digits}0")] {
            assert_eq!(PersonKeys::parse_key(wrong), Err(PersonKeysFault::Digits), "{wrong}");
        }
    }

    #[test]
    fn a_reason_may_be_any_printable_text_of_bounded_size() {
        for reason in ["spam", " \"'<script>\u{1f4a9} ", &"é".repeat(100)] {
            assert_eq!(AnnulmentReason::parse(reason).unwrap().as_str(), reason);
        }
        for (wrong, fault) in [
            ("", AnnulmentReasonFault::Empty),
            ("  ", AnnulmentReasonFault::Empty),
            ("two\nlines", AnnulmentReasonFault::Control),
            ("\u{1b}[31m", AnnulmentReasonFault::Control),
            (&"é".repeat(101), AnnulmentReasonFault::TooLong),
        ] {
            assert_eq!(AnnulmentReason::parse(wrong), Err(fault), "{wrong}");
        }
    }

    #[test]
    fn a_request_of_one_part_says_nothing_about_parts() {
        let request = AnnulmentRequest {
            id: AnnulmentId(uuid::Uuid::from_u128(5)),
            budget: BudgetId::parse("parks").unwrap(),
            selection: AnnulmentSelection::Network {
                network: NetworkDigest(0xab),
                span: SignalSpan::new(1, 5).unwrap(),
            },
            reason: AnnulmentReason::parse("spam").unwrap(),
            dry_run: false,
            part: AnnulmentPart::default(),
        };
        let json = serde_json::to_string(&request).unwrap();
        assert_eq!(
            json,
            r#"{"id":"00000000-0000-0000-0000-000000000005","budget":"parks","selection":{"by":"network","network":"00000000000000ab","from_ms":1,"until_ms":5},"reason":"spam","dry_run":false}"#
        );
        assert_eq!(serde_json::from_str::<AnnulmentRequest>(&json).unwrap(), request);
        let empty = json.replace(r#""until_ms":5"#, r#""until_ms":1"#);
        assert!(serde_json::from_str::<AnnulmentRequest>(&empty).is_err());
        let short = json.replace("00000000000000ab", "ab");
        assert!(serde_json::from_str::<AnnulmentRequest>(&short).is_err());
    }
}
