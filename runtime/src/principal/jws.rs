//! Compact tokens (JWS, RFC 7515): splits a token, and verifies its signature with one public key.
//!
//! Each key has one algorithm, and a token must name that one: no token chooses how it is verified. Keys and addresses
//! of keys in a token's header are never used.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents,
    UnparsedPublicKey,
};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::CredentialFault;

/// Maximum length of a token.
pub(super) const MAX_TOKEN_BYTES: usize = 4_096;

/// An algorithm of public-key signatures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Algorithm {
    EdDsa,
    Es256,
    Rs256,
}

impl Algorithm {
    /// Parses the name of an algorithm that is accepted: never `none`, and none with a shared secret.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "EdDSA" => Some(Self::EdDsa),
            "ES256" => Some(Self::Es256),
            "RS256" => Some(Self::Rs256),
            _ => None,
        }
    }
}

/// A public key, which belongs to one algorithm.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum VerifyingKey {
    /// The 32 bytes of an Ed25519 key.
    Ed25519(Vec<u8>),
    /// An uncompressed point of P-256.
    P256(Vec<u8>),
    /// Modulus and exponent, big-endian.
    Rsa { n: Vec<u8>, e: Vec<u8> },
}

impl VerifyingKey {
    pub fn algorithm(&self) -> Algorithm {
        match self {
            Self::Ed25519(_) => Algorithm::EdDsa,
            Self::P256(_) => Algorithm::Es256,
            Self::Rsa { .. } => Algorithm::Rs256,
        }
    }

    fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let verified = match self {
            Self::Ed25519(key) => UnparsedPublicKey::new(&ED25519, key).verify(message, signature),
            Self::P256(key) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key).verify(message, signature)
            }
            Self::Rsa { n, e } => {
                let key = RsaPublicKeyComponents { n, e };
                key.verify(&RSA_PKCS1_2048_8192_SHA256, message, signature)
            }
        };
        verified.is_ok()
    }
}

/// The members of a header that matter.
#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    /// Extensions that must be understood; none is.
    crit: Option<IgnoredAny>,
}

/// A token that was split and decoded. Nothing of it is verified.
pub(super) struct CompactToken<'t> {
    pub algorithm: Algorithm,
    pub key_id: Option<String>,
    message: &'t [u8],
    signature: Vec<u8>,
    payload: Vec<u8>,
}

impl<'t> CompactToken<'t> {
    /// Splits and decodes a token.
    ///
    /// # Errors
    /// When it is too long, has no three parts, or has a header that is not accepted.
    pub fn parse(token: &'t [u8]) -> Result<Self, CredentialFault> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(CredentialFault::Malformed);
        }
        let mut parts = token.split(|byte| *byte == b'.');
        let (Some(header), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(CredentialFault::Malformed);
        };
        let message = token.get(..header.len() + 1 + payload.len());
        let decoded: Header =
            serde_json::from_slice(&decode(header)?).map_err(|_| CredentialFault::Malformed)?;
        if decoded.crit.is_some() {
            return Err(CredentialFault::Malformed);
        }
        Ok(Self {
            algorithm: Algorithm::parse(&decoded.alg).ok_or(CredentialFault::UnknownKey)?,
            key_id: decoded.kid,
            message: message.ok_or(CredentialFault::Malformed)?,
            signature: decode(signature)?,
            payload: decode(payload)?,
        })
    }

    /// Verifies the signature and returns the payload.
    ///
    /// # Errors
    /// When the key has another algorithm, or did not make the signature.
    pub fn verify(self, key: &VerifyingKey) -> Result<Vec<u8>, CredentialFault> {
        if key.algorithm() != self.algorithm {
            return Err(CredentialFault::UnknownKey);
        }
        if key.verifies(self.message, &self.signature) {
            Ok(self.payload)
        } else {
            Err(CredentialFault::Signature)
        }
    }
}

/// Decodes base64url without padding.
///
/// # Errors
/// When the text is not the one form of its bytes.
pub(super) fn decode(text: &[u8]) -> Result<Vec<u8>, CredentialFault> {
    URL_SAFE_NO_PAD.decode(text).map_err(|_| CredentialFault::Malformed)
}

/// Encodes as base64url without padding.
pub(super) fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}
