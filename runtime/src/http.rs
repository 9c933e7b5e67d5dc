//! The HTTP server of every process, with limits on everything a client controls.
//!
//! [`router`] adds the shared routes and one layer to a process's own routes: `/livez`, `/readyz`, `/metrics`, the
//! problem pages; request ids, metrics, access log, limits, and a problem for every error. [`serve`] owns the accept
//! loop, because connections, headers, writes and shutdown need limits that axum's own loop does not offer. What the
//! routes do is up to each process.

mod address_slots;
mod body_memory;
mod conditional;
mod connection;
mod content_coding;
mod cors;
mod error_response;
mod exchange;
mod host;
mod idempotency_key;
mod layer;
mod media_type;
mod request_body;
mod request_id;
mod response_body;
mod serve;
mod stream;
mod transfer_coding;
mod weighted;

use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::response::IntoResponse;
use axum::routing::get;
use http::header::CONTENT_TYPE;

use crate::admin::is_local;
use crate::config::{defaults, parse, settings};
use crate::health::{self, Health};
use crate::metrics::{Metrics, RequestMetrics};
use crate::problem::{self, Problem, ProblemKind};

pub use conditional::{
    FailedPrecondition, WriteConditions, digest, etag_of, has_already, quoted_etag,
};
pub use content_coding::ContentCoding;
pub use cors::{ClientOrigins, origin};
pub use idempotency_key::idempotency_key;
pub use media_type::{has_media_type, prefers, prefers_json};
pub use request_body::without_byte_order_mark;
pub use request_id::{RequestId, X_REQUEST_ID};
pub use response_body::ChargedBody;
pub use serve::{ServeError, bind, serve};

settings! {
    /// Limits of the HTTP server.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct HttpConfig {
        /// Maximum number of open connections, as far as the limit of open files allows; further ones are answered 503
        /// and closed.
        pub max_connections: usize = "http.max_connections", default "10000",
            unit "connections", parse parse::positive_usize;
        /// Maximum number of open connections of one client address (IPv6: of one /64 network); further ones are
        /// answered 503 and closed. Does not apply to trusted proxies (`admin.trusted_proxies`), which limit their
        /// clients themselves.
        pub max_connections_per_address: usize = "http.max_connections_per_address", default "1000",
            unit "connections", parse parse::positive_usize;
        /// Maximum number of requests that are handled at the same time on all routes that have rate limits, each until
        /// its response headers, a submission from the end of its body on; further ones are answered 503. Batches may
        /// take a half of it, reads of the API three fourths, pages and attempts to sign in seven eighths, single
        /// submissions everything.
        pub max_requests: usize = "http.max_requests", default "2000",
            unit "requests", parse parse::positive_usize;
        /// Time for a request's headers to arrive; also how long a connection may idle.
        pub header_timeout: Duration = "http.header_timeout_ms", default "10000",
            unit "ms", parse parse::positive_duration_ms;
        /// Time from a request's headers to its response headers, reading the body included; also the time in which a
        /// client must read the rest of a response, or 64 KiB of it.
        pub request_timeout: Duration = "http.request_timeout_ms", default "30000",
            unit "ms", parse parse::positive_duration_ms;
        /// Maximum size of one request body.
        pub max_body_bytes: usize = "http.max_body_bytes", default "2097152",
            unit "bytes", parse parse::positive_usize;
        /// Maximum size of the bodies of all unanswered requests, and of large responses being written, together;
        /// further requests are answered 503. Bodies over 64 KiB leave a fourth to smaller ones. One client address
        /// (IPv6: one /64 network) may hold an eighth, or what one body of `http.max_body_bytes` may take if that is
        /// more (three times as much, at least 64 KiB more); its further requests are answered 429.
        pub max_buffered_bytes: usize = "http.max_buffered_bytes", default "268435456",
            unit "bytes", parse parse::positive_usize;
        /// Time for requests in flight to finish during shutdown.
        pub drain_timeout: Duration = "http.drain_timeout_ms", default "10000",
            unit "ms", parse parse::duration_ms;
        /// Origins of other sites whose scripts may submit and read a person's submission, separated by commas, for
        /// example `https://example.org`. Public reads are for every origin.
        pub cors_origins: ClientOrigins = "http.cors_origins", default "",
            unit "origins", parse ClientOrigins::parse;
    }
}

impl Default for HttpConfig {
    fn default() -> Self {
        defaults(Self::read)
    }
}

/// Which clients may read `/metrics`.
///
/// Metrics count submissions, also of budgets whose results are withheld. A process whose address is public shows them
/// to its own machine alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricsReaders {
    /// Every client, on an address that is not public.
    Everyone,
    /// Clients on the same machine.
    SameMachine,
}

/// Adds the shared routes and the request layer to a process's own routes. `/metrics` is for everyone.
///
/// # Panics
/// As [`router_for`].
pub fn router(
    service: &'static str,
    routes: Router,
    metrics: &Metrics,
    health: &Health,
    config: &HttpConfig,
) -> Router {
    router_for(MetricsReaders::Everyone, service, routes, metrics, health, config)
}

/// Adds the shared routes and the request layer to a process's own routes.
///
/// The process's own routes must not contain `/livez`, `/readyz` or `/metrics`. The problem pages are a fallback.
///
/// # Panics
/// If the HTTP metrics are already registered: a bug, like two handlers for one route.
#[expect(clippy::expect_used, reason = "a bug that the first start shows")]
pub fn router_for(
    metrics_readers: MetricsReaders,
    service: &'static str,
    routes: Router,
    metrics: &Metrics,
    health: &Health,
    config: &HttpConfig,
) -> Router {
    let requests =
        RequestMetrics::register(service, metrics).expect("the HTTP metrics are registered once");
    let health = health.clone();
    let rendered = metrics.clone();
    routes
        .route("/livez", get(async || health::livez()))
        .route("/readyz", get(async move || health.readyz()))
        .route(
            "/metrics",
            get(async move |request: Request| {
                let (parts, _) = request.into_parts();
                if metrics_readers == MetricsReaders::SameMachine && !is_local(&parts) {
                    return Problem::new(ProblemKind::Forbidden)
                        .detail(
                            "metrics are for clients on the same machine and of the same account",
                        )
                        .into_response();
                }
                let text = [(CONTENT_TYPE, prometheus::TEXT_FORMAT)];
                (text, rendered.render()).into_response()
            }),
        )
        .fallback_service(problem::pages())
        // Handlers become services here, so that the layer wraps each of them once, not at every request.
        .with_state(())
        .layer(layer::RequestLayer::new(requests, config))
        .with_state(())
}
