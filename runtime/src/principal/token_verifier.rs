//! Verifies the tokens of an identity provider with keys that are read in the background.
//!
//! A request never waits for the provider. Without keys that were read within a day, no token is accepted.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use prometheus::IntGauge;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::claims::{self, Expected};
use super::config::TokenConfig;
use super::jwks::KeySet;
use super::jws::CompactToken;
use super::key_source::KeySource;
use super::{CredentialFault, Person};

/// Interval for reading the keys.
const REFRESH_INTERVAL: Duration = Duration::from_secs(300);
/// Interval for reading the keys again after a failure, and the least time between two reads.
const RETRY_INTERVAL: Duration = Duration::from_secs(10);
/// How long keys are used without having been read again.
const MAX_KEY_AGE: Duration = Duration::from_secs(24 * 60 * 60);

/// Verifies tokens. Cheap to clone.
#[derive(Clone)]
pub(super) struct TokenVerifier(Arc<Inner>);

struct Inner {
    expected: Expected,
    source: KeySource,
    keys: ArcSwapOption<LoadedKeys>,
    /// A token named a key that is not known: the provider may have a new one.
    unknown_key: Notify,
    /// 1 while the last read has failed.
    unreadable: IntGauge,
}

struct LoadedKeys {
    set: KeySet,
    read_at: Instant,
}

impl TokenVerifier {
    /// Creates a verifier without keys; [`Self::refresh_keys`] reads them.
    ///
    /// # Errors
    /// When no HTTP client can be built.
    pub fn new(config: &TokenConfig, unreadable: IntGauge) -> Result<Self, reqwest::Error> {
        Ok(Self(Arc::new(Inner {
            expected: config.expected.clone(),
            source: KeySource::new(&config.keys)?,
            keys: ArcSwapOption::empty(),
            unknown_key: Notify::new(),
            unreadable,
        })))
    }

    /// Returns the issuer of the tokens.
    pub fn issuer(&self) -> &Arc<str> {
        &self.0.expected.issuer
    }

    /// Verifies a token and returns its person.
    ///
    /// # Errors
    /// Why the token is not accepted.
    pub fn verify(&self, token: &[u8], now_s: u64) -> Result<Person, CredentialFault> {
        let token = CompactToken::parse(token)?;
        let keys = self.0.keys.load();
        let keys = keys.as_ref().filter(|keys| keys.read_at.elapsed() <= MAX_KEY_AGE);
        let keys = keys.ok_or(CredentialFault::NoKeys)?;
        let key = keys.set.find(&token).inspect_err(|_| self.0.unknown_key.notify_one())?;
        let payload = token.verify(key)?;
        claims::check(&payload, &self.0.expected, now_s)
    }

    /// Reads the keys now and then, until `stop`. After a failure the keys read before stay in use.
    pub async fn refresh_keys(self, stop: CancellationToken) {
        let inner = &*self.0;
        let refresh = async {
            loop {
                let read = inner.source.read().await;
                inner.unreadable.set(i64::from(read.is_err()));
                let pause = match read {
                    Ok(set) => {
                        tracing::debug!(keys = set.len(), "identity provider's keys read");
                        inner
                            .keys
                            .store(Some(Arc::new(LoadedKeys { set, read_at: Instant::now() })));
                        REFRESH_INTERVAL
                    }
                    Err(error) => {
                        tracing::warn!(
                            error,
                            "failed to read the identity provider's keys, retrying"
                        );
                        RETRY_INTERVAL
                    }
                };
                // Unknown keys are cheap to invent: they cause at most one read in each interval.
                sleep(RETRY_INTERVAL).await;
                tokio::select! {
                    () = sleep(pause - RETRY_INTERVAL) => {}
                    () = inner.unknown_key.notified() => {}
                }
            }
        };
        stop.run_until_cancelled(refresh).await;
    }

    /// Replaces the keys, for tests.
    #[cfg(test)]
    pub fn set_keys(&self, set: KeySet) {
        self.0.keys.store(Some(Arc::new(LoadedKeys { set, read_at: Instant::now() })));
    }
}
