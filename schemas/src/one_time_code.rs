//! One-time codes by e-mail as they are stored: keyed hashes and bounds. Who makes the hashes is up to `identity`.

use std::fmt;
use std::time::Duration;

/// How long a one-time code is valid.
pub const CODE_LIFETIME: Duration = Duration::from_secs(10 * 60);

/// Wrong tries after which a one-time code is void.
pub const MAX_CODE_TRIES: u32 = 5;

/// How many of them one client has, so that no single one voids the codes of others.
pub const MAX_CODE_TRIES_OF_CLIENT: u32 = 3;

/// How many mails one mailbox gets, over all budgets.
pub const MAIL_LIMITS: [MailLimit; 2] = [
    MailLimit { mails: 3, window: Duration::from_secs(10 * 60) },
    MailLimit { mails: 10, window: Duration::from_secs(24 * 60 * 60) },
];

/// A bound of the mails to one mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MailLimit {
    /// Maximum number of mails in any window.
    pub mails: u32,
    /// Length of the window.
    pub window: Duration,
}

/// A keyed hash of 256 bits. `Debug` hides it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyedHash([u8; 32]);

impl KeyedHash {
    /// Creates the hash from its bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Returns the hash in hexadecimal digits.
    pub fn to_hex(self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl fmt::Debug for KeyedHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyedHash(hidden)")
    }
}

/// What a one-time code is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CodeHolder {
    /// Keyed hash of budget and address: one code is stored for each.
    pub slot: KeyedHash,
    /// Keyed hash of the address alone, whose mails are counted over all budgets.
    pub mailbox: KeyedHash,
}
