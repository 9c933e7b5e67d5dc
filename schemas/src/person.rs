//! Pseudonymous persons: ingest replaces a person's id by a keyed hash, and never writes the id in clear text.

use std::fmt;

use ring::hmac;
use serde::{Deserialize, Serialize};

use crate::SubmissionId;

/// Maximum length of a person's id, in bytes.
pub const PERSON_MAX_BYTES: usize = 256;

/// Why a text is not a valid person id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PersonFault {
    /// The text is empty.
    #[error("must not be empty")]
    Empty,
    /// The text has more than 256 bytes of UTF-8.
    #[error("must be at most {PERSON_MAX_BYTES} bytes")]
    TooLong,
    /// The text has a control character.
    #[error("must not contain control characters")]
    Control,
    /// The text is `.` or `..`, which clients remove from paths.
    #[error("must not be `.` or `..`, which no path can contain")]
    DotSegment,
}

/// A person's id: as a client sent it, or the subject that an issuer vouches for.
///
/// Personal data: has no `Display`, and `Debug` hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct PersonId {
    /// What the key is derived from: the id, or the issuer and the subject, each after [`ISSUER_MARK`].
    text: String,
    /// Where the subject begins in `text`; 0 without an issuer.
    subject_at: usize,
}

/// Begins the issuer and ends it. No id has control characters, so no id of a client equals a subject of an issuer.
const ISSUER_MARK: char = '\x03';

impl PersonId {
    /// Parses a person's id.
    ///
    /// # Errors
    /// When it is empty, longer than 256 bytes, has control characters, or is a dot segment.
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
        if matches!(text, "." | "..") {
            return Err(PersonFault::DotSegment);
        }
        Ok(Self { text: text.to_owned(), subject_at: 0 })
    }

    /// Creates the person that an issuer calls `subject`. Different issuers have different persons.
    ///
    /// # Errors
    /// When the issuer or the subject is not a valid id.
    pub fn of_issuer(issuer: &str, subject: &str) -> Result<Self, PersonFault> {
        let (issuer, subject) = (Self::parse(issuer)?, Self::parse(subject)?);
        let mut text = format!("{ISSUER_MARK}{}{ISSUER_MARK}", issuer.text);
        let subject_at = text.len();
        text.push_str(&subject.text);
        Ok(Self { text, subject_at })
    }

    /// Creates the person of an anonymous submission; its id is the submission's id.
    pub fn anonymous(submission: SubmissionId) -> Self {
        Self { text: submission.to_string(), subject_at: 0 }
    }

    /// What the key is derived from.
    pub(crate) fn key_input(&self) -> &[u8] {
        self.text.as_bytes()
    }

    /// The id in clear text, without its issuer, only for the response to the person.
    pub fn reveal(&self) -> &str {
        self.text.get(self.subject_at..).unwrap_or_default()
    }
}

impl fmt::Debug for PersonId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PersonId(hidden)")
    }
}

/// Pseudonym of a person in one budget: 128 bits of an HMAC. Cannot be linked to the person without the secret.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PersonKey([u8; Self::BYTES]);

impl PersonKey {
    /// Length of a key, in bytes.
    pub const BYTES: usize = 16;

    /// Creates a key from its bytes.
    pub fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        Self(bytes)
    }

    /// The key's bytes.
    pub fn as_bytes(&self) -> &[u8; Self::BYTES] {
        &self.0
    }

    /// The key's first 64 bits, by which the pending people of a partition are told apart. Part of the stored format.
    pub fn fingerprint(&self) -> u64 {
        (u128::from_be_bytes(self.0) >> u64::BITS) as u64
    }
}

impl fmt::Debug for PersonKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PersonKey(hidden)")
    }
}

/// Recognises a secret without revealing it: 128 bits of an HMAC under the secret, in hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SecretFingerprint(String);

impl SecretFingerprint {
    /// Creates the fingerprint that [`Display`](fmt::Display) wrote.
    pub fn from_text(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Display for SecretFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The secret of the deployment: the keys of persons ([`for_budget`](Self::for_budget)) and the secrets for other
/// purposes are derived from it.
///
/// All processes of a deployment must share the secret, and it must never change: with another secret, everyone would
/// count as a new person.
#[derive(Clone)]
pub struct PersonSecret(pub(crate) hmac::Key);

impl PersonSecret {
    /// Minimum length of the secret, in bytes.
    pub const MIN_BYTES: usize = 32;

    /// Creates the secret; `None` if the secret is shorter than 32 bytes.
    pub fn new(secret: &[u8]) -> Option<Self> {
        if secret.len() < Self::MIN_BYTES {
            return None;
        }
        Some(Self(hmac::Key::new(hmac::HMAC_SHA256, secret)))
    }

    /// Computes the fingerprint of the secret. The key of no person has this input, as budget ids are not empty.
    pub fn fingerprint(&self) -> SecretFingerprint {
        let digest = self.sign(&[b"\0secret"]);
        let half = digest.as_ref().iter().take(16);
        SecretFingerprint(half.map(|byte| format!("{byte:02x}")).collect())
    }

    /// Derives the secret of another purpose. It reveals neither this secret nor that of a third purpose.
    ///
    /// The key of no person has this input, as budget ids are not empty.
    pub fn derived_secret(&self, purpose: &str) -> [u8; 32] {
        let mut secret = [0; 32];
        secret.copy_from_slice(self.sign(&[b"\0derived\0", purpose.as_bytes()]).as_ref());
        secret
    }

    pub(crate) fn sign(&self, text: &[&[u8]]) -> hmac::Tag {
        let mut hash = hmac::Context::with_key(&self.0);
        text.iter().for_each(|part| hash.update(part));
        hash.sign()
    }
}

impl fmt::Debug for PersonSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PersonSecret(hidden)")
    }
}
