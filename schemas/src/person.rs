//! Who said it, without saying who: a person's id becomes a keyed hash at the door and is never written in clear.

use std::fmt;

use ring::hmac;

use crate::{BudgetId, SubmissionId};

/// The longest person id taken, in bytes.
pub const PERSON_MAX_BYTES: usize = 256;

/// Why a text cannot name a person.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PersonFault {
    /// Nothing there.
    #[error("must not be empty")]
    Empty,
    /// Over 256 bytes of UTF-8.
    #[error("must be at most {PERSON_MAX_BYTES} bytes")]
    TooLong,
    /// A control character.
    #[error("must not contain control characters")]
    Control,
}

/// A person's id as the public gave it. It has no `Display` and a `Debug` that hides it: it must not reach a log.
#[derive(Clone, PartialEq, Eq)]
pub struct PersonName(String);

impl PersonName {
    /// Reads a person's id.
    ///
    /// # Errors
    /// When it is empty, over 256 bytes, or holds control characters.
    pub fn parse(text: &str) -> Result<Self, PersonFault> {
        if text.is_empty() {
            return Err(PersonFault::Empty);
        }
        if text.len() > PERSON_MAX_BYTES {
            return Err(PersonFault::TooLong);
        }
        if text.chars().any(char::is_control) {
            return Err(PersonFault::Control);
        }
        Ok(Self(text.to_owned()))
    }

    /// The person of a submission that names none: one of its own, which goes by the submission's id.
    pub fn anonymous(submission: SubmissionId) -> Self {
        Self(submission.to_string())
    }

    /// The id in clear, for the one answer that goes back to the person.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for PersonName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PersonName(hidden)")
    }
}

/// One person in one budget: 128 bits of an HMAC. Without the secret it leads back to nobody.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PersonKey([u8; Self::BYTES]);

impl PersonKey {
    /// Its length in bytes.
    pub const BYTES: usize = 16;

    /// Takes the bytes of a key.
    pub fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        Self(bytes)
    }

    /// The bytes of the key.
    pub fn as_bytes(&self) -> &[u8; Self::BYTES] {
        &self.0
    }
}

impl fmt::Debug for PersonKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PersonKey(hidden)")
    }
}

/// Makes person keys with the deployment's secret. All ingests and APIs of a deployment must share it, for its
/// whole life: another secret makes everyone a new person.
#[derive(Clone)]
pub struct PersonKeyHasher(hmac::Key);

impl PersonKeyHasher {
    /// The shortest secret taken, in bytes.
    pub const SECRET_MIN_BYTES: usize = 32;

    /// Takes the secret, or gives `None` when it is shorter than 32 bytes.
    pub fn new(secret: &[u8]) -> Option<Self> {
        if secret.len() < Self::SECRET_MIN_BYTES {
            return None;
        }
        Some(Self(hmac::Key::new(hmac::HMAC_SHA256, secret)))
    }

    /// The key of a person in a budget: HMAC-SHA-256 of budget, a zero byte (no slug has one) and the id, cut to
    /// 128 bits.
    pub fn key(&self, budget: &BudgetId, person: &PersonName) -> PersonKey {
        PersonKey(self.digest(budget, &[person.reveal().as_bytes()]))
    }

    /// A submission id for an `Idempotency-Key` that is not a UUID itself: the same key gives the same id.
    pub fn submission_id(&self, budget: &BudgetId, idempotency_key: &str) -> SubmissionId {
        // The separator keeps these apart from person keys: person ids hold no control character.
        let digest = self.digest(budget, &[b"\x01", idempotency_key.as_bytes()]);
        SubmissionId(uuid::Builder::from_custom_bytes(digest).into_uuid())
    }

    fn digest(&self, budget: &BudgetId, text: &[&[u8]]) -> [u8; PersonKey::BYTES] {
        let mut hash = hmac::Context::with_key(&self.0);
        hash.update(budget.as_str().as_bytes());
        hash.update(b"\0");
        text.iter().for_each(|part| hash.update(part));
        let whole = hash.sign();
        let mut cut = [0; PersonKey::BYTES];
        cut.copy_from_slice(&whole.as_ref()[..PersonKey::BYTES]);
        cut
    }
}

impl fmt::Debug for PersonKeyHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PersonKeyHasher(hidden)")
    }
}
