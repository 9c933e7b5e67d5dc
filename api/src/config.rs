//! The settings of the read API.

use std::net::SocketAddr;
use std::time::Duration;

use runtime::config::{KeyDoc, Reader, parse, settings};

use crate::breaker::BreakerSettings;

/// Upper bound of `api.freshness_ms`: bounds how long a lost change notification can hide a new version.
const MAX_FRESHNESS: Duration = Duration::from_secs(10);

settings! {
    /// The settings as configured, one field per key.
    struct ApiSettings {
        /// Listen address of the `api` service.
        listen: SocketAddr = "api.listen", default "127.0.0.1:8002",
            unit "address:port", parse parse::socket_addr;
        /// Deadline of one Redis read before the next tier is queried.
        redis_deadline: Duration = "api.redis_deadline_ms", default "50",
            unit "ms", parse parse::positive_duration_ms;
        /// Deadline of one read of the committed totals, or of one person row, in the store.
        summary_deadline: Duration = "api.summary_deadline_ms", default "500",
            unit "ms", parse parse::positive_duration_ms;
        /// Deadline of a recount of all person rows, the last tier.
        recount_deadline: Duration = "api.recount_deadline_ms", default "10000",
            unit "ms", parse parse::positive_duration_ms;
        /// Consecutive failures of a tier that open its circuit breaker.
        breaker_failures: u32 = "api.breaker_failures", default "3",
            unit "reads", parse parse::positive_u32;
        /// How long an open circuit breaker skips its tier before a trial read.
        breaker_cooldown: Duration = "api.breaker_cooldown_ms", default "1000",
            unit "ms", parse parse::positive_duration_ms;
        /// How long results in memory are served while change notifications arrive; at most 10000.
        freshness: Duration = "api.freshness_ms", default "1000",
            unit "ms", parse freshness;
        /// Maximum number of requests waiting for a submission (`Prefer: wait`); further ones are answered 503.
        max_waiters: usize = "api.max_waiters", default "1000",
            unit "requests", parse parse::positive_usize;
        /// Maximum number of concurrent downloads of published exports; further ones are answered 503.
        max_downloads: usize = "api.max_downloads", default "16",
            unit "downloads", parse parse::positive_usize;
    }
}

/// Settings of the read API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ApiConfig {
    /// Listen address of the service.
    pub listen: SocketAddr,
    /// Deadline of one Redis read.
    pub redis_deadline: Duration,
    /// Deadline of one read of the committed totals, or of one person row.
    pub summary_deadline: Duration,
    /// Deadline of one recount.
    pub recount_deadline: Duration,
    /// Circuit breakers of the tiers.
    pub breaker: BreakerSettings,
    /// How long results in memory are served while change notifications arrive.
    pub freshness: Duration,
    /// Maximum number of requests waiting for a submission.
    pub max_waiters: usize,
    /// Maximum number of concurrent downloads of published exports.
    pub max_downloads: usize,
}

impl ApiConfig {
    /// The keys of these settings, for the configuration reference.
    pub const KEYS: &[KeyDoc] = ApiSettings::KEYS;

    /// Reads the settings. `None` if the reader recorded a fault.
    pub fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let settings = ApiSettings::read(reader)?;
        Some(Self {
            listen: settings.listen,
            redis_deadline: settings.redis_deadline,
            summary_deadline: settings.summary_deadline,
            recount_deadline: settings.recount_deadline,
            breaker: BreakerSettings {
                failures: settings.breaker_failures,
                cooldown: settings.breaker_cooldown,
            },
            freshness: settings.freshness,
            max_waiters: settings.max_waiters,
            max_downloads: settings.max_downloads,
        })
    }
}

fn freshness(text: &str) -> Result<Duration, String> {
    match parse::positive_duration_ms(text) {
        Ok(freshness) if freshness <= MAX_FRESHNESS => Ok(freshness),
        _ => Err("expected a whole number of milliseconds from 1 to 10000".to_owned()),
    }
}
