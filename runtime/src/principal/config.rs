//! The settings of persons' credentials.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;

use super::claims::Expected;
use super::key_source::KeyLocation;
use crate::config::{KeyDoc, Reader, parse, settings};

settings! {
    /// The settings as they are written.
    #[derive(Debug, Clone)]
    struct IdentitySettings {
        /// Issuer (`iss`) of the tokens for budgets with the identity rule `token`. Part of every person's key: it must
        /// never change. If empty, no tokens are accepted.
        token_issuer: Option<Arc<str>> = "identity.token_issuer", default "",
            unit "URL", parse issuer;
        /// Audience (`aud`) that these tokens must name.
        token_audience: String = "identity.token_audience", default "allocator",
            unit "", parse parse::non_empty;
        /// File or `https` URL of the issuer's public keys (JWKS), read again every five minutes and when a token names
        /// a new key. `http` is accepted from the same machine alone.
        token_keys: Option<KeyLocation> = "identity.token_keys", default "",
            unit "path or URL", parse key_location, secret;
        /// How long a session lasts, after which a code has to be entered again.
        session_lifetime: Duration = "identity.session_lifetime_ms", default "43200000",
            unit "ms", parse parse::positive_duration_ms;
    }
}

/// Settings of persons' credentials.
#[derive(Debug, Clone)]
pub struct IdentityConfig {
    /// The tokens of the identity provider; `None`: none are accepted.
    pub tokens: Option<TokenConfig>,
    /// How long a session lasts.
    pub session_lifetime: Duration,
}

/// Which tokens of an identity provider are accepted.
#[derive(Debug, Clone)]
pub struct TokenConfig {
    pub(super) expected: Expected,
    pub(super) keys: KeyLocation,
}

impl IdentityConfig {
    /// The keys of these settings, for the configuration reference.
    pub const KEYS: &'static [KeyDoc] = IdentitySettings::KEYS;

    /// Reads the settings. `None` if the reader recorded a fault.
    pub fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let IdentitySettings { token_issuer, token_audience, token_keys, session_lifetime } =
            IdentitySettings::read(reader)?;
        let tokens = match (token_issuer, token_keys) {
            (Some(issuer), Some(keys)) => {
                let expected = Expected { issuer, audience: token_audience };
                Some(TokenConfig { expected, keys })
            }
            (None, None) => None,
            _ => {
                let message =
                    "expected both identity.token_issuer and identity.token_keys, or neither";
                reader.fault(IdentitySettings::token_keys.name, message.to_owned());
                return None;
            }
        };
        Some(Self { tokens, session_lifetime })
    }
}

/// Parses an issuer. A URL differs from the methods of sessions, which vouch for persons too.
fn issuer(text: &str) -> Result<Option<Arc<str>>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let is_url = text.len() <= MAX_ISSUER_BYTES && Url::parse(text).is_ok_and(|url| url.has_host());
    let is_plain = !text.chars().any(|c| c.is_control() || c.is_whitespace());
    (is_url && is_plain)
        .then(|| Some(text.into()))
        .ok_or_else(|| "expected a URL, such as https://id.example".to_owned())
}

/// Maximum length of an issuer, as of a person's id.
const MAX_ISSUER_BYTES: usize = 256;

fn key_location(text: &str) -> Result<Option<KeyLocation>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let Some(scheme) = text.split_once("://").map(|(scheme, _)| scheme) else {
        return Ok(Some(KeyLocation::File(PathBuf::from(text))));
    };
    let url = Url::parse(text).map_err(|error| format!("expected a path or a URL: {error}"))?;
    let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let is_local =
        host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    match scheme {
        "https" => Ok(Some(KeyLocation::Url(url))),
        "http" if is_local => Ok(Some(KeyLocation::Url(url))),
        _ => Err("expected a path, or a URL with https (http from the same machine)".to_owned()),
    }
}
