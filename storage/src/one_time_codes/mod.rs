//! One-time codes by e-mail: which code an address of a budget has, its tries, and how many mails its mailbox got.
//!
//! Stores keyed hashes alone. Does not know addresses or codes, and sends nothing.

pub mod memory;
pub mod redis;

use async_trait::async_trait;
use schemas::{CodeHolder, KeyedHash};

/// The codes cannot be read or stored. No code is taken for right then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the store of one-time codes is unavailable: {0}")]
pub struct CodesUnavailable(pub String);

/// Whether a code was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IssueOutcome {
    /// The code replaces an earlier one, and its mail is counted.
    Issued,
    /// The mailbox has had too many mails. An earlier code stays valid.
    Throttled,
}

/// Stores one-time codes: [`schemas::CODE_LIFETIME`], [`schemas::MAX_CODE_TRIES`] and [`schemas::MAIL_LIMITS`] bound
/// them.
#[async_trait]
pub trait OneTimeCodes: Send + Sync + 'static {
    /// Stores the keyed hash of a code in place of an earlier one, if the mailbox may get another mail.
    ///
    /// # Errors
    /// If the outcome is unknown.
    async fn issue(
        &self,
        holder: &CodeHolder,
        code: &KeyedHash,
    ) -> Result<IssueOutcome, CodesUnavailable>;

    /// Tries a code for a client, by the keyed hash of its network; `None` if that is unknown. The right code is used up:
    /// of any number of concurrent calls one returns `true`. After the last wrong try the code is void. A client that
    /// has used up [`schemas::MAX_CODE_TRIES_OF_CLIENT`] gets `false` and takes no try.
    ///
    /// # Errors
    /// If the outcome is unknown. The code may be used up.
    async fn redeem(
        &self,
        holder: &CodeHolder,
        code: &KeyedHash,
        client: Option<&KeyedHash>,
    ) -> Result<bool, CodesUnavailable>;
}
