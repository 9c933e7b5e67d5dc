//! The salt of one budget: what the keys of its persons are derived from, until the budget is forgotten.
//!
//! Does not own the person secret of the deployment (`person`), the derivation of keys (`budget_person_hasher`), nor the
//! stored form of a definition (`stored_budget`).

use std::fmt;

use jiff::Timestamp;
use serde::Serializer;

/// Random bytes of one budget, without which nobody can derive the keys of its persons.
///
/// Secret: has no `Display`, `Debug` hides it, and only the stored form of a definition contains it.
#[derive(Clone, PartialEq, Eq)]
pub struct PersonSalt([u8; Self::BYTES]);

impl PersonSalt {
    /// Length of a salt, in bytes.
    pub const BYTES: usize = 32;

    /// Creates a salt from random bytes.
    pub fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        Self(bytes)
    }

    /// The salt's bytes, for deriving keys.
    pub(crate) fn as_bytes(&self) -> &[u8; Self::BYTES] {
        &self.0
    }

    /// Parses the hexadecimal digits of a stored definition.
    pub(crate) fn from_hex(text: &str) -> Option<Self> {
        if text.len() != 2 * Self::BYTES || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let mut salt = [0; Self::BYTES];
        for (index, byte) in salt.iter_mut().enumerate() {
            *byte = u8::from_str_radix(text.get(2 * index..2 * index + 2)?, 16).ok()?;
        }
        Some(Self(salt))
    }

    /// Writes the hexadecimal digits of a stored definition.
    pub(crate) fn to_hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl fmt::Debug for PersonSalt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PersonSalt(hidden)")
    }
}

/// What the keys of a budget's persons are derived from besides the person secret.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum PersonSaltState {
    /// Nothing: an earlier release created the budget.
    #[default]
    DeploymentOnly,
    /// The budget's salt.
    Salted(PersonSalt),
    /// A salt that was destroyed. Nobody can derive the keys again.
    Forgotten {
        /// When it was destroyed.
        at: Timestamp,
    },
}

impl PersonSaltState {
    /// Returns when the salt was destroyed; `None` if it was not.
    pub fn forgotten_at(&self) -> Option<Timestamp> {
        match self {
            Self::Forgotten { at } => Some(*at),
            Self::DeploymentOnly | Self::Salted(_) => None,
        }
    }

    /// Whether the keys can be derived.
    pub(crate) fn is_kept(&self) -> bool {
        self.forgotten_at().is_none()
    }

    /// Serializes what everyone may see: when the persons were forgotten.
    pub(crate) fn serialize_public<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.forgotten_at() {
            Some(at) => serializer.collect_str(&at),
            None => serializer.serialize_none(),
        }
    }
}
