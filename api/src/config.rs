//! The settings of the reads.

use std::net::SocketAddr;
use std::time::Duration;

use runtime::config::{Key, KeyDoc, Reader, parse};

use crate::breaker::BreakerSettings;

/// The longest that `api.freshness_ms` may be: news that is lost on its way, which nobody can notice, must not be missed
/// for long.
const FRESHNESS_MAX: Duration = Duration::from_secs(10);

/// How the reads behave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ApiConfig {
    /// Where the process listens.
    pub listen: SocketAddr,
    /// How long one read of Redis may take.
    pub redis_deadline: Duration,
    /// How long one read of the committed totals, or of one person's row, may take.
    pub summary_deadline: Duration,
    /// How long one recount may take.
    pub recount_deadline: Duration,
    /// When a tier is left alone, and for how long.
    pub breaker: BreakerSettings,
    /// For how long an answer in memory is trusted while news of every move arrives.
    pub freshness: Duration,
    /// How many reads may wait for a submission at once.
    pub max_waiters: usize,
    /// How many published exports may be read at once.
    pub max_downloads: usize,
}

impl ApiConfig {
    const LISTEN: Key<SocketAddr> = Key::new(
        "api.listen",
        Some("127.0.0.1:8002"),
        "address:port",
        "Where the API listens when it runs as a process of its own.",
        parse::socket_addr,
    );
    const REDIS_DEADLINE_MS: Key<Duration> = Key::new(
        "api.redis_deadline_ms",
        Some("50"),
        "ms",
        "Time that one read of Redis may take before the next tier is asked.",
        parse::positive_duration_ms,
    );
    const SUMMARY_DEADLINE_MS: Key<Duration> = Key::new(
        "api.summary_deadline_ms",
        Some("500"),
        "ms",
        "Time that one read of the committed totals, or of a person's row, may take.",
        parse::positive_duration_ms,
    );
    const RECOUNT_DEADLINE_MS: Key<Duration> = Key::new(
        "api.recount_deadline_ms",
        Some("10000"),
        "ms",
        "Time that a recount of everyone's rows may take, the last resort.",
        parse::positive_duration_ms,
    );
    const BREAKER_FAILURES: Key<u32> = Key::new(
        "api.breaker_failures",
        Some("3"),
        "reads",
        "Failures in a row after which a tier is passed over.",
        parse::positive_u32,
    );
    const BREAKER_COOLDOWN_MS: Key<Duration> = Key::new(
        "api.breaker_cooldown_ms",
        Some("1000"),
        "ms",
        "Time for which it is passed over before one read tries it again.",
        parse::positive_duration_ms,
    );
    const FRESHNESS_MS: Key<Duration> = Key::new(
        "api.freshness_ms",
        Some("1000"),
        "ms",
        "Time for which an answer in memory is trusted while news of every move arrives; at most 10000.",
        freshness,
    );
    const MAX_WAITERS: Key<usize> = Key::new(
        "api.max_waiters",
        Some("1000"),
        "requests",
        "Requests that may wait for a submission (`Prefer: wait`) at once; one more is answered 503.",
        parse::positive_usize,
    );
    const MAX_DOWNLOADS: Key<usize> = Key::new(
        "api.max_downloads",
        Some("16"),
        "downloads",
        "Published exports that may be read at once; one more is answered 503.",
        parse::positive_usize,
    );

    /// The settings of this module.
    pub const KEYS: &[KeyDoc] = &[
        Self::LISTEN.describe(),
        Self::REDIS_DEADLINE_MS.describe(),
        Self::SUMMARY_DEADLINE_MS.describe(),
        Self::RECOUNT_DEADLINE_MS.describe(),
        Self::BREAKER_FAILURES.describe(),
        Self::BREAKER_COOLDOWN_MS.describe(),
        Self::FRESHNESS_MS.describe(),
        Self::MAX_WAITERS.describe(),
        Self::MAX_DOWNLOADS.describe(),
    ];

    /// Reads them; `None` once a fault was noted.
    pub fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let listen = reader.read(&Self::LISTEN);
        let redis_deadline = reader.read(&Self::REDIS_DEADLINE_MS);
        let summary_deadline = reader.read(&Self::SUMMARY_DEADLINE_MS);
        let recount_deadline = reader.read(&Self::RECOUNT_DEADLINE_MS);
        let failures = reader.read(&Self::BREAKER_FAILURES);
        let cooldown = reader.read(&Self::BREAKER_COOLDOWN_MS);
        let freshness = reader.read(&Self::FRESHNESS_MS);
        let max_waiters = reader.read(&Self::MAX_WAITERS);
        let max_downloads = reader.read(&Self::MAX_DOWNLOADS);
        Some(Self {
            listen: listen?,
            redis_deadline: redis_deadline?,
            summary_deadline: summary_deadline?,
            recount_deadline: recount_deadline?,
            breaker: BreakerSettings { failures: failures?, cooldown: cooldown? },
            freshness: freshness?,
            max_waiters: max_waiters?,
            max_downloads: max_downloads?,
        })
    }
}

fn freshness(text: &str) -> Result<Duration, String> {
    match parse::positive_duration_ms(text) {
        Ok(freshness) if freshness <= FRESHNESS_MAX => Ok(freshness),
        _ => Err("expected a whole number of milliseconds from 1 to 10000".to_owned()),
    }
}
