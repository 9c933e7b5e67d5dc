//! Who sends a request: its credentials, and the one principal that they prove.
//!
//! | module | owns |
//! |---|---|
//! | `presented` | the credentials of a request, not verified yet |
//! | `same_origin` | whether one of our own pages sent a request |
//! | `jws`, `jwks` | compact tokens, their signatures, and sets of public keys |
//! | `claims` | the rules for a token's claims; pure |
//! | `sessions` | the tokens that this service makes and verifies itself |
//! | `token_verifier`, `key_source` | the tokens of an identity provider, and where its keys come from |
//! | `authenticator` | from credentials to a [`Principal`] or a [`CredentialFault`] |
//!
//! This module does not know budgets' rules, and does not decide what a principal may do.

mod authenticator;
mod claims;
mod config;
mod jwks;
mod jws;
mod key_source;
mod presented;
mod same_origin;
mod sessions;
#[cfg(test)]
mod tests;
mod token_verifier;

use std::sync::Arc;

use crate::admin::Role;
use crate::problem::{Problem, ProblemKind};

pub use authenticator::{Authenticator, AuthenticatorError};
pub use config::{IdentityConfig, TokenConfig};
pub use presented::PresentedCredentials;
pub use same_origin::{RequestOrigin, require_same_origin};
pub use sessions::{Session, SessionKey};

/// Who sends a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    /// The request has no credentials.
    Anonymous,
    /// A person, by a session or by an identity provider's token.
    Person(Person),
    /// A program that submits for others: a credential with the role `submitter`.
    Service(Service),
    /// An administrator.
    Administrator {
        /// The name of the credential.
        name: Arc<str>,
        /// The role of the credential.
        role: Role,
    },
}

/// A program that submits for others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// The name of the credential.
    pub name: Arc<str>,
    /// The organisation whose limits count the service's requests.
    pub organisation: Option<Arc<str>>,
    /// The only budgets in which the service acts; `None`: all.
    pub budgets: Option<Arc<[String]>>,
}

impl Service {
    /// Whether the service acts in a budget.
    pub fn acts_in(&self, budget: &str) -> bool {
        self.budgets.as_ref().is_none_or(|ids| ids.iter().any(|id| id == budget))
    }
}

/// A person whose token was verified.
#[derive(Clone, PartialEq, Eq)]
pub struct Person {
    /// Who vouches for the person: the method of a session, or the `iss` of a token.
    pub issuer: Arc<str>,
    /// The person's name with the issuer. Personal data.
    pub subject: String,
    /// The organisation to which the person belongs.
    pub organisation: Option<String>,
    /// The only budgets that the token is for; `None`: all.
    pub budgets: Option<Vec<String>>,
}

impl std::fmt::Debug for Person {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Person({}, hidden)", self.issuer)
    }
}

/// Why credentials prove nobody. Does not repeat them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CredentialFault {
    /// Neither an administrator's token nor a session nor a provider's token.
    #[error("the token is unknown or malformed")]
    Malformed,
    /// The algorithm is not one of the key's, or no key is named so.
    #[error("the token names no known key")]
    UnknownKey,
    /// The signature is not the key's.
    #[error("the token's signature is wrong")]
    Signature,
    /// The claims lack a required member, or one has the wrong type.
    #[error("the token's claims are malformed")]
    Claims,
    /// `exp` has passed.
    #[error("the token has expired")]
    Expired,
    /// The code of the session was revoked. Said as of an expired session.
    #[error("the token has expired")]
    Revoked,
    /// `nbf` is to come.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// `iss` or `aud` is another one.
    #[error("the token is for another service")]
    OtherService,
    /// The keys of the identity provider could not be read recently.
    #[error("the identity provider's keys could not be read")]
    NoKeys,
}

impl CredentialFault {
    /// All faults.
    pub const ALL: [Self; 9] = [
        Self::Malformed,
        Self::UnknownKey,
        Self::Signature,
        Self::Claims,
        Self::Expired,
        Self::Revoked,
        Self::NotYetValid,
        Self::OtherService,
        Self::NoKeys,
    ];

    /// Returns the label of a metric.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::UnknownKey => "unknown_key",
            Self::Signature => "signature",
            Self::Claims => "claims",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::NotYetValid => "not_yet_valid",
            Self::OtherService => "other_service",
            Self::NoKeys => "no_keys",
        }
    }

    /// Whether the credentials may be a guess: nobody who could sign has made them.
    const fn is_guess(self) -> bool {
        match self {
            Self::Malformed | Self::UnknownKey | Self::Signature => true,
            Self::Claims
            | Self::Expired
            | Self::Revoked
            | Self::NotYetValid
            | Self::OtherService
            | Self::NoKeys => false,
        }
    }

    /// Returns the problem to respond with.
    pub fn problem(self) -> Problem {
        match self {
            Self::NoKeys => Problem::new(ProblemKind::Unavailable)
                .detail(format!("{self}; nothing was accepted"))
                .retry_after(RETRY_AFTER_NO_KEYS),
            _ => unauthorized(INVALID_TOKEN, &self.to_string()),
        }
    }
}

/// `Retry-After` while the keys of the identity provider are missing.
const RETRY_AFTER_NO_KEYS: std::time::Duration = std::time::Duration::from_secs(10);

/// The challenge to a request with an invalid token (RFC 6750, 3.1).
const INVALID_TOKEN: &str = "Bearer error=\"invalid_token\"";

/// Returns the problem of a request without credentials that a route needs.
pub fn credentials_required(detail: &str) -> Problem {
    unauthorized("Bearer", detail)
}

fn unauthorized(challenge: &'static str, detail: &str) -> Problem {
    Problem::new(ProblemKind::Unauthorized)
        .detail(detail)
        .header(http::header::WWW_AUTHENTICATE, http::HeaderValue::from_static(challenge))
}
