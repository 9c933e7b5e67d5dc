//! The settings of administrator access.

use std::num::NonZeroU32;

use super::tokens_file::{self, TokensFile};
use crate::client::TrustedProxies;
use crate::config::settings;

settings! {
    /// Administrator credentials and rate limits.
    #[derive(Debug, Clone)]
    pub struct AdminConfig {
        /// File with one administrator or service per line, `NAME ROLE sha256:HEX`, reloaded when it changes. If empty,
        /// only clients on the same machine and of the same account are administrators; `allocator run` makes a file of
        /// its own instead.
        pub tokens: Option<TokensFile> = "admin.tokens_file", default "",
            unit "path", parse tokens_file::read, secret;
        /// Maximum requests of one administrator per minute and process; further ones are answered 429.
        pub requests_per_minute: NonZeroU32 = "admin.requests_per_minute", default "500",
            unit "requests", parse positive;
        /// Maximum attempts with a wrong token or personal code per minute, client address and process, on the routes
        /// of administrators and of persons; further ones are answered 429. A valid token is always accepted.
        pub failures_per_minute: NonZeroU32 = "admin.failures_per_minute", default "10",
            unit "attempts", parse positive;
        /// Addresses and networks of proxies whose `X-Forwarded-For` is trusted when anything is counted or limited per
        /// client address.
        pub trusted_proxies: TrustedProxies = "admin.trusted_proxies", default "127.0.0.0/8,::1",
            unit "addresses", parse TrustedProxies::parse;
    }
}

fn positive(text: &str) -> Result<NonZeroU32, String> {
    text.trim().parse().map_err(|_| "expected a whole number from 1 to 4294967295".to_owned())
}
