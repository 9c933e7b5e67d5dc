//! The settings of administration.

use std::num::NonZeroU32;

use super::client_address::TrustedProxies;
use super::tokens_file::{self, TokensFile};
use crate::config::{Key, KeyDoc, Reader};

/// Who administrators are, and how often they may ask.
#[derive(Debug, Clone)]
pub struct AdminConfig {
    /// Their credentials; without any, only clients on this machine are administrators.
    pub tokens: Option<TokensFile>,
    /// Requests of one administrator in a minute.
    pub requests_per_minute: NonZeroU32,
    /// Failed attempts of one client address in a minute.
    pub failures_per_minute: NonZeroU32,
    /// The proxies that say truly where a request comes from.
    pub trusted_proxies: TrustedProxies,
}

impl AdminConfig {
    const TOKENS_FILE: Key<Option<TokensFile>> = Key::new(
        "admin.tokens_file",
        Some(""),
        "path",
        "A file with one administrator a line, `NAME ROLE sha256:HEX`, read again when it changes; without one, only \
         clients on the same machine are administrators.",
        tokens_file::read,
    );
    const REQUESTS_PER_MINUTE: Key<NonZeroU32> = Key::new(
        "admin.requests_per_minute",
        Some("600"),
        "requests",
        "Requests that one administrator may make of one process in a minute; one more is answered 429.",
        positive,
    );
    const FAILURES_PER_MINUTE: Key<NonZeroU32> = Key::new(
        "admin.failures_per_minute",
        Some("10"),
        "attempts",
        "Attempts without a valid token that one client address may make of one process in a minute; then it is \
         answered 429 whatever it shows.",
        positive,
    );
    const TRUSTED_PROXIES: Key<TrustedProxies> = Key::new(
        "admin.trusted_proxies",
        Some("127.0.0.0/8,::1"),
        "addresses",
        "Proxies, by address or network, whose `X-Forwarded-For` is believed when failed attempts are counted.",
        TrustedProxies::parse,
    );

    /// The settings of this module.
    pub const KEYS: &[KeyDoc] = &[
        Self::TOKENS_FILE.describe(),
        Self::REQUESTS_PER_MINUTE.describe(),
        Self::FAILURES_PER_MINUTE.describe(),
        Self::TRUSTED_PROXIES.describe(),
    ];

    /// Reads them; `None` once a fault was noted.
    pub fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let tokens = reader.read(&Self::TOKENS_FILE);
        let requests_per_minute = reader.read(&Self::REQUESTS_PER_MINUTE);
        let failures_per_minute = reader.read(&Self::FAILURES_PER_MINUTE);
        let trusted_proxies = reader.read(&Self::TRUSTED_PROXIES);
        Some(Self {
            tokens: tokens?,
            requests_per_minute: requests_per_minute?,
            failures_per_minute: failures_per_minute?,
            trusted_proxies: trusted_proxies?,
        })
    }
}

fn positive(text: &str) -> Result<NonZeroU32, String> {
    text.trim().parse().map_err(|_| "expected a whole number from 1 to 4294967295".to_owned())
}
