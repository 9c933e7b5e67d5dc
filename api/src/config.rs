//! The settings of the read API.

use std::net::SocketAddr;
use std::time::Duration;

use runtime::config::{parse, settings};

use crate::breaker::BreakerSettings;
use crate::site::{EmbedAncestors, PublicUrl};

/// Upper bound of `api.freshness_ms`: bounds how long a lost change notification can hide a new version.
const MAX_FRESHNESS: Duration = Duration::from_secs(10);

settings! {
    /// Settings of the read API.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct ApiConfig {
        /// Listen address of the `api` service.
        pub listen: SocketAddr = "api.listen", default "127.0.0.1:8002",
            unit "address:port", parse parse::socket_addr;
        /// Deadline of one Redis read before the next tier is queried.
        pub redis_deadline: Duration = "api.redis_deadline_ms", default "50",
            unit "ms", parse parse::positive_duration_ms;
        /// Deadline of one read of the committed totals, or of one person row, in the store.
        pub summary_deadline: Duration = "api.summary_deadline_ms", default "500",
            unit "ms", parse parse::positive_duration_ms;
        /// Maximum number of concurrent reads of the committed totals; further ones wait, at most
        /// `api.summary_deadline_ms`, and are then answered from memory or 503.
        pub max_summary_reads: usize = "api.max_summary_reads", default "16",
            unit "reads", parse parse::positive_usize;
        /// Maximum number of concurrent reads of person rows; further ones wait, at most `api.summary_deadline_ms`, and
        /// are then answered 503.
        pub max_person_reads: usize = "api.max_person_reads", default "256",
            unit "reads", parse parse::positive_usize;
        /// Deadline of a recount of all person rows, the last tier.
        pub recount_deadline: Duration = "api.recount_deadline_ms", default "10000",
            unit "ms", parse parse::positive_duration_ms;
        /// Maximum number of person rows, of all budgets together, that a recount reads; with more rows the tier is
        /// off.
        pub recount_max_people: u64 = "api.recount_max_people", default "1000000",
            unit "people", parse parse::positive_u64;
        /// Consecutive failures of a tier that open its circuit breaker.
        pub breaker_failures: u32 = "api.breaker_failures", default "3",
            unit "reads", parse parse::positive_u32;
        /// How long an open circuit breaker skips its tier before a trial read.
        pub breaker_cooldown: Duration = "api.breaker_cooldown_ms", default "1000",
            unit "ms", parse parse::positive_duration_ms;
        /// How long results in memory are served while change notifications arrive; at most 10000.
        pub freshness: Duration = "api.freshness_ms", default "1000",
            unit "ms", parse freshness;
        /// Maximum number of requests waiting for a submission (`Prefer: wait`); further ones are answered 503. A tenth
        /// of it, and of the limit per client, is for receipts without a signature, as earlier releases gave them.
        pub max_waiters: usize = "api.max_waiters", default "1000",
            unit "requests", parse parse::positive_usize;
        /// Maximum number of requests of one client address (IPv6: of one /64 network) waiting for a submission;
        /// further ones are answered 429. Does not apply to a trusted proxy that does not name its clients.
        pub max_waiters_per_client: usize = "api.max_waiters_per_client", default "100",
            unit "requests", parse parse::positive_usize;
        /// Maximum number of open streams of answers; further ones are answered 503. Less than `http.max_connections`,
        /// so that readers of streams never take the last connection.
        pub max_streams: usize = "api.max_streams", default "8000",
            unit "streams", parse parse::positive_usize;
        /// Maximum number of open streams of one client address (IPv6: of one /64 network); further ones are answered
        /// 429. Does not apply to a trusted proxy that does not name its clients.
        pub max_streams_per_client: usize = "api.max_streams_per_client", default "200",
            unit "streams", parse parse::positive_usize;
        /// Maximum number of concurrent downloads of published exports; further ones are answered 503, unless the
        /// reader of one is too slow, which is then ended.
        pub max_downloads: usize = "api.max_downloads", default "16",
            unit "downloads", parse parse::positive_usize;
        /// Maximum number of concurrent downloads of one client address (IPv6: of one /64 network); further ones are
        /// answered
        /// 429. Does not apply to a trusted proxy that does not name its clients.
        pub max_downloads_per_client: usize = "api.max_downloads_per_client", default "4",
            unit "downloads", parse parse::positive_usize;
        /// The address under which readers reach the service, for example `https://example.org`: for links on other
        /// sites, oEmbed and search engines. Empty: pages have no absolute addresses.
        pub public_url: Option<PublicUrl> = "page.public_url", default "",
            unit "origin", parse PublicUrl::parse_optional;
        /// Sites that may show embedded results in a frame: `*`, `none`, or origins separated by commas.
        pub embed_ancestors: EmbedAncestors = "page.embed_ancestors", default "*",
            unit "origins", parse EmbedAncestors::parse;
    }
}

impl ApiConfig {
    /// Returns the settings of every tier's circuit breaker.
    pub(crate) fn breaker(&self) -> BreakerSettings {
        BreakerSettings { failures: self.breaker_failures, cooldown: self.breaker_cooldown }
    }
}

fn freshness(text: &str) -> Result<Duration, String> {
    match parse::positive_duration_ms(text) {
        Ok(freshness) if freshness <= MAX_FRESHNESS => Ok(freshness),
        _ => Err("expected a whole number of milliseconds from 1 to 10000".to_owned()),
    }
}
