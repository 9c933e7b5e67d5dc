//! The rules for the claims of an identity provider's token (RFC 7519). Pure: the time comes from the caller.

use std::sync::Arc;

use serde::Deserialize;

use super::{CredentialFault, Person};

/// How far the clock of an identity provider may be ahead of ours, for `nbf`.
const MAX_CLOCK_LEAD_S: u64 = 30;
/// Maximum length of a subject.
const MAX_SUBJECT_BYTES: usize = 256;
/// Maximum length of an organisation.
const MAX_ORGANISATION_BYTES: usize = 128;

/// What a token must say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Expected {
    pub issuer: Arc<str>,
    pub audience: String,
}

/// The claims, with the types that they must have: numbers as text are refused.
#[derive(Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    aud: Audience,
    exp: u64,
    nbf: u64,
    #[serde(default)]
    budgets: Option<Vec<String>>,
    #[serde(default)]
    organisation: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

impl Audience {
    fn names(&self, expected: &str) -> bool {
        match self {
            Self::One(name) => name == expected,
            Self::Several(names) => names.iter().any(|name| name == expected),
        }
    }
}

/// Checks the payload of a token whose signature was verified, and returns its person.
///
/// # Errors
/// The first rule that it breaks.
pub(super) fn check(
    payload: &[u8],
    expected: &Expected,
    now_s: u64,
) -> Result<Person, CredentialFault> {
    let claims: Claims = serde_json::from_slice(payload).map_err(|_| CredentialFault::Claims)?;
    if claims.iss != *expected.issuer || !claims.aud.names(&expected.audience) {
        return Err(CredentialFault::OtherService);
    }
    check_times(claims.nbf, claims.exp, now_s)?;
    let has_valid_names = is_name(&claims.sub, MAX_SUBJECT_BYTES)
        && claims.organisation.as_ref().is_none_or(|name| is_name(name, MAX_ORGANISATION_BYTES));
    if !has_valid_names {
        return Err(CredentialFault::Claims);
    }
    Ok(Person {
        issuer: Arc::clone(&expected.issuer),
        subject: claims.sub,
        organisation: claims.organisation,
        budgets: claims.budgets,
    })
}

/// Checks from when and until when a token is valid.
pub(super) fn check_times(nbf_s: u64, exp_s: u64, now_s: u64) -> Result<(), CredentialFault> {
    if exp_s <= now_s {
        return Err(CredentialFault::Expired);
    }
    if nbf_s > now_s.saturating_add(MAX_CLOCK_LEAD_S) {
        return Err(CredentialFault::NotYetValid);
    }
    Ok(())
}

fn is_name(text: &str, max_bytes: usize) -> bool {
    (1..=max_bytes).contains(&text.len()) && !text.chars().any(char::is_control)
}
