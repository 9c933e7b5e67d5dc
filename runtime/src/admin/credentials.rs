//! Who has a credential. Tokens are known by their SHA-256 only, so that nothing here could be used by who reads it.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::role::Role;

/// The least characters of a token: 128 bits, if it is hexadecimal.
pub(super) const TOKEN_MIN: usize = 32;
/// The most.
pub(super) const TOKEN_MAX: usize = 256;

/// The name of whoever is on this machine, where no credential is configured. No credential may have it.
pub(super) const LOCAL: &str = "local";

/// An administrator, as a route and the log see one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    pub(super) name: Arc<str>,
    pub(super) role: Role,
    /// Among all of them, from 0: their place where requests are counted.
    pub(super) place: usize,
}

impl Principal {
    /// Whoever is on this machine, where no credential is configured.
    pub(super) fn local() -> Self {
        Self { name: LOCAL.into(), role: Role::Admin, place: 0 }
    }

    /// The name of the credential.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What they may do.
    pub fn role(&self) -> Role {
        self.role
    }
}

/// The SHA-256 of a token.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct TokenDigest([u8; 32]);

impl TokenDigest {
    pub(super) fn of(token: &[u8]) -> Self {
        Self(Sha256::digest(token).into())
    }

    /// Reads 64 hexadecimal digits.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let mut digest = [0; 32];
        for (place, byte) in digest.iter_mut().enumerate() {
            *byte = u8::from_str_radix(text.get(2 * place..2 * place + 2)?, 16).ok()?;
        }
        Some(Self(digest))
    }
}

impl fmt::Debug for TokenDigest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("TokenDigest(hidden)")
    }
}

/// Every credential; at least one.
#[derive(Debug, Clone)]
pub struct Credentials(pub(super) Vec<(Principal, TokenDigest)>);

impl Credentials {
    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// The same, where whoever had a place before has it still: what they have spent of their limit stays spent.
    pub(super) fn placed_after(mut self, before: &Self) -> Self {
        let known = |name: &str| {
            let same = before.0.iter().find(|(principal, _)| *principal.name == *name);
            same.map(|(principal, _)| principal.place)
        };
        let kept: HashSet<usize> =
            self.0.iter().filter_map(|(principal, _)| known(&principal.name)).collect();
        let mut free = (0..).filter(|place| !kept.contains(place));
        for (principal, _) in &mut self.0 {
            let place = known(&principal.name).or_else(|| free.next());
            principal.place = place.unwrap_or(principal.place);
        }
        self
    }

    /// Whose token this is. Digests are compared: how long that takes tells nothing about a token.
    pub(super) fn bearer_of(&self, token: &[u8]) -> Option<&Principal> {
        if !(TOKEN_MIN..=TOKEN_MAX).contains(&token.len()) {
            return None;
        }
        let shown = TokenDigest::of(token);
        self.0.iter().find(|(_, digest)| *digest == shown).map(|(principal, _)| principal)
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

    fn places(credentials: &Credentials) -> Vec<(&str, usize)> {
        credentials.0.iter().map(|(principal, _)| (principal.name(), principal.place)).collect()
    }

    #[test]
    fn whoever_stays_keeps_their_place_and_whoever_comes_has_one_of_their_own() {
        let before = credentials(&["anna", "otto", "vera"]);
        assert_eq!(places(&before), [("anna", 0), ("otto", 1), ("vera", 2)]);
        let after = credentials(&["zoe", "vera", "yann", "otto"]).placed_after(&before);
        assert_eq!(places(&after), [("zoe", 0), ("vera", 2), ("yann", 3), ("otto", 1)]);
        let again = credentials(&["yann", "anna"]).placed_after(&after);
        assert_eq!(places(&again), [("yann", 3), ("anna", 0)]);
    }
}
