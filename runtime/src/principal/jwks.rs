//! Sets of public keys (JWKS, RFC 7517).
//!
//! Keys of other kinds are skipped, so that a provider can add some; above all secrets (`oct`), with which everyone who
//! reads the set could sign.

use serde::Deserialize;

use super::CredentialFault;
use super::jws::{Algorithm, CompactToken, VerifyingKey, decode};

/// Maximum size of a set.
pub(super) const MAX_KEY_SET_BYTES: usize = 64 * 1024;
/// Maximum number of keys in a set.
const MAX_KEYS: usize = 32;
/// Bounds of an RSA modulus.
const RSA_MODULUS_BYTES: std::ops::RangeInclusive<usize> = 256..=1_024;

/// Why a text is not a set of keys.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum KeySetFault {
    #[error("is not a JSON object with `keys`")]
    NotASet,
    #[error("has more than {MAX_KEYS} keys")]
    TooManyKeys,
    #[error("has no key for EdDSA, ES256 or RS256")]
    NoUsableKey,
}

#[derive(Deserialize)]
struct RawSet {
    keys: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct RawKey {
    kty: String,
    kid: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    alg: Option<String>,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
    n: Option<String>,
    e: Option<String>,
}

/// The public keys of an identity provider.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct KeySet(Vec<(Option<String>, VerifyingKey)>);

impl KeySet {
    /// Parses a set; keys that cannot be used are skipped.
    ///
    /// # Errors
    /// When it is not a set, has too many keys, or none that can be used.
    pub fn parse(json: &[u8]) -> Result<Self, KeySetFault> {
        let set: RawSet = serde_json::from_slice(json).map_err(|_| KeySetFault::NotASet)?;
        if set.keys.len() > MAX_KEYS {
            return Err(KeySetFault::TooManyKeys);
        }
        let keys: Vec<_> = set.keys.into_iter().filter_map(usable_key).collect();
        if keys.is_empty() { Err(KeySetFault::NoUsableKey) } else { Ok(Self(keys)) }
    }

    /// Returns the number of keys.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Finds the key that a token names. A token that names none gets the only key of its algorithm.
    ///
    /// # Errors
    /// When there is no such key, or several.
    pub fn find(&self, token: &CompactToken<'_>) -> Result<&VerifyingKey, CredentialFault> {
        let mut candidates = self.0.iter().filter(|(id, key)| {
            key.algorithm() == token.algorithm && (token.key_id.is_none() || token.key_id == *id)
        });
        match (candidates.next(), candidates.next()) {
            (Some((_, key)), None) => Ok(key),
            _ => Err(CredentialFault::UnknownKey),
        }
    }
}

fn usable_key(key: serde_json::Value) -> Option<(Option<String>, VerifyingKey)> {
    let key: RawKey = serde_json::from_value(key).ok()?;
    if key.usage.as_deref().is_some_and(|usage| usage != "sig") {
        return None;
    }
    let member = |text: &Option<String>| decode(text.as_deref()?.as_bytes()).ok();
    let coordinate = |text| member(text).filter(|bytes| bytes.len() == 32);
    let verifying = match (key.kty.as_str(), key.crv.as_deref()) {
        ("OKP", Some("Ed25519")) => VerifyingKey::Ed25519(coordinate(&key.x)?),
        ("EC", Some("P-256")) => {
            // 4 begins an uncompressed point.
            VerifyingKey::P256([vec![4], coordinate(&key.x)?, coordinate(&key.y)?].concat())
        }
        ("RSA", _) => {
            let n = member(&key.n).filter(|n| RSA_MODULUS_BYTES.contains(&n.len()))?;
            VerifyingKey::Rsa { n, e: member(&key.e)? }
        }
        _ => return None,
    };
    let names_other =
        key.alg.is_some_and(|name| Algorithm::parse(&name) != Some(verifying.algorithm()));
    (!names_other).then_some((key.kid, verifying))
}
