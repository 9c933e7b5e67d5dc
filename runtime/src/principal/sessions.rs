//! The tokens that this service makes itself: JWTs with a keyed hash (HS256) under a secret of the deployment.
//!
//! A session is for one budget. Its header is one constant text, so that nothing in it can be chosen by a client.

use std::fmt;
use std::sync::Arc;

use ring::hmac;
use serde::{Deserialize, Serialize};

use super::claims::check_times;
use super::jws::{MAX_TOKEN_BYTES, decode, encode};
use super::{CredentialFault, Person};

const HEADER: &str = r#"{"alg":"HS256","typ":"JWT"}"#;

/// A session to be written into a token.
#[derive(Clone, PartialEq, Eq)]
pub struct Session<'a> {
    /// How the person proved to be the subject, such as `code`.
    pub method: &'a str,
    /// The person's name with that method. Personal data.
    pub subject: &'a str,
    /// The budget that the session is for.
    pub budget: &'a str,
    /// When the session begins, in seconds since 1970.
    pub begins_at_s: u64,
    /// When the session ends, in seconds since 1970.
    pub ends_at_s: u64,
}

#[derive(Serialize, Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    aud: String,
    nbf: u64,
    exp: u64,
}

/// The key of the sessions of a deployment. Cheap to clone.
#[derive(Clone)]
pub struct SessionKey {
    key: hmac::Key,
    /// The encoded header and its dot.
    prefix: Arc<str>,
}

impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionKey(hidden)")
    }
}

impl SessionKey {
    /// Creates the key from a secret that all processes of the deployment share.
    pub fn new(secret: &[u8; 32]) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        Self { key, prefix: format!("{}.", encode(HEADER.as_bytes())).into() }
    }

    /// Makes the token of a session.
    pub fn sign(&self, session: &Session<'_>) -> String {
        let claims = Claims {
            iss: session.method.to_owned(),
            sub: session.subject.to_owned(),
            aud: session.budget.to_owned(),
            nbf: session.begins_at_s,
            exp: session.ends_at_s,
        };
        // Only strings and numbers, which always serialize.
        let payload = serde_json::to_vec(&claims).unwrap_or_default();
        let message = format!("{}{}", self.prefix, encode(&payload));
        let tag = hmac::sign(&self.key, message.as_bytes());
        format!("{message}.{}", encode(tag.as_ref()))
    }

    /// Whether a token has the header of a session; other tokens are not verified here.
    pub(super) fn has_header(&self, token: &[u8]) -> bool {
        token.starts_with(self.prefix.as_bytes())
    }

    /// Verifies the token of a session. Tags are compared in constant time.
    ///
    /// # Errors
    /// When this deployment has not made it, or it is not valid now.
    pub fn verify(&self, token: &[u8], now_s: u64) -> Result<Person, CredentialFault> {
        if token.len() > MAX_TOKEN_BYTES || !self.has_header(token) {
            return Err(CredentialFault::Malformed);
        }
        let end = token.iter().rposition(|byte| *byte == b'.').unwrap_or_default();
        let (message, tag) = token.split_at(end);
        let tag = decode(tag.get(1..).unwrap_or_default())?;
        hmac::verify(&self.key, message, &tag).map_err(|_| CredentialFault::Signature)?;
        let payload = decode(message.get(self.prefix.len()..).unwrap_or_default())?;
        let claims: Claims =
            serde_json::from_slice(&payload).map_err(|_| CredentialFault::Claims)?;
        check_times(claims.nbf, claims.exp, now_s)?;
        Ok(Person {
            issuer: claims.iss.into(),
            subject: claims.sub,
            organisation: None,
            budgets: Some(vec![claims.aud]),
        })
    }
}
