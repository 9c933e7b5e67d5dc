//! Administrators' credentials. Only the SHA-256 of a token is stored, so a leaked file does not leak tokens.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::role::Role;

/// Minimum length of a token: 128 bits in hexadecimal.
pub(super) const MIN_TOKEN_LENGTH: usize = 32;
/// Maximum length of a token.
pub(super) const MAX_TOKEN_LENGTH: usize = 256;

/// The name of local clients where no credentials are configured. No credential may use it.
pub(super) const LOCAL_NAME: &str = "local";

/// What a line of the role `submitter` may say besides.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ServiceAttributes {
    /// The organisation whose limits count the service's requests.
    pub organisation: Option<Arc<str>>,
    /// The only budgets in which the service acts; `None`: all.
    pub budgets: Option<Arc<[String]>>,
}

/// An authenticated administrator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    pub(super) name: Arc<str>,
    pub(super) role: Role,
    pub(super) service: ServiceAttributes,
    /// The administrator's slot in the rate limiter, from 0.
    pub(super) slot: usize,
}

impl Principal {
    /// Returns the principal of local clients where no credentials are configured.
    pub(super) fn local() -> Self {
        let service = ServiceAttributes::default();
        Self { name: LOCAL_NAME.into(), role: Role::Admin, service, slot: 0 }
    }

    /// Returns the name of the credential.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the role of the credential.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Returns what the line says of a service.
    pub(crate) fn service(&self) -> &ServiceAttributes {
        &self.service
    }
}

/// The SHA-256 of a token.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct TokenDigest([u8; 32]);

impl TokenDigest {
    pub(super) fn of(token: &[u8]) -> Self {
        Self(Sha256::digest(token).into())
    }

    /// Parses 64 hexadecimal digits.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut digest = [0; 32];
        hex::decode_to_slice(text, &mut digest).ok()?;
        Some(Self(digest))
    }
}

impl fmt::Debug for TokenDigest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("TokenDigest(hidden)")
    }
}

/// All credentials.
#[derive(Debug, Clone)]
pub struct Credentials(pub(super) Vec<(Principal, TokenDigest)>);

impl Credentials {
    /// Returns the number of credentials.
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// Whether a credential has the role `submitter`.
    pub(super) fn has_submitter(&self) -> bool {
        self.0.iter().any(|(principal, _)| principal.role == Role::Submitter)
    }

    /// Gives each name the slot it had before, so that its rate limit carries over.
    pub(super) fn keep_slots_of(mut self, previous: &Self) -> Self {
        let previous_slot = |name: &str| {
            let same = previous.0.iter().find(|(principal, _)| *principal.name == *name);
            same.map(|(principal, _)| principal.slot)
        };
        let kept: HashSet<usize> =
            self.0.iter().filter_map(|(principal, _)| previous_slot(&principal.name)).collect();
        let mut free = (0..).filter(|slot| !kept.contains(slot));
        for (principal, _) in &mut self.0 {
            let slot = previous_slot(&principal.name).or_else(|| free.next());
            principal.slot = slot.unwrap_or(principal.slot);
        }
        self
    }

    /// Finds the principal of a token. Digests are compared, so the time taken reveals nothing about a token.
    pub(super) fn find_by_token(&self, token: &[u8]) -> Option<&Principal> {
        if !(MIN_TOKEN_LENGTH..=MAX_TOKEN_LENGTH).contains(&token.len()) {
            return None;
        }
        let presented = TokenDigest::of(token);
        self.0.iter().find(|(_, digest)| *digest == presented).map(|(principal, _)| principal)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn credentials(names: &[&str]) -> Credentials {
        let line = |(number, name): (usize, &&str)| format!("{name} viewer sha256:{number:064}\n");
        let text: String = names.iter().enumerate().map(line).collect();
        Credentials::parse(&text).unwrap()
    }

    fn slots(credentials: &Credentials) -> Vec<(&str, usize)> {
        credentials.0.iter().map(|(principal, _)| (principal.name(), principal.slot)).collect()
    }

    #[test]
    fn names_keep_their_slots_and_new_names_get_free_ones() {
        let before = credentials(&["anna", "otto", "vera"]);
        assert_eq!(slots(&before), [("anna", 0), ("otto", 1), ("vera", 2)]);
        let after = credentials(&["zoe", "vera", "yann", "otto"]).keep_slots_of(&before);
        assert_eq!(slots(&after), [("zoe", 0), ("vera", 2), ("yann", 3), ("otto", 1)]);
        let again = credentials(&["yann", "anna"]).keep_slots_of(&after);
        assert_eq!(slots(&again), [("yann", 3), ("anna", 0)]);
    }
}
