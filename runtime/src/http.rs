//! The bounded HTTP server that every process here has.
//!
//! [`router`] puts what all of them share around a process's own routes: `/livez`, `/readyz`, `/metrics`, the pages of
//! the problems, and one layer with ids, metrics, the access log, limits, and problems for everything that goes wrong.
//! [`serve`] owns the accept loop, because connections, headers, writes and the end of the process need limits of
//! their own. What the routes do is not decided here.

mod answer;
mod body;
mod connection;
mod exchange;
mod idempotency_key;
mod layer;
mod request_id;
mod serve;
mod stream;

use std::time::Duration;

use axum::Router;
use axum::response::IntoResponse;
use axum::routing::get;
use http::header::CONTENT_TYPE;

use crate::config::{Key, KeyDoc, Reader, parse};
use crate::health::{self, Health};
use crate::metrics::{Metrics, RequestMetrics};
use crate::problem;

pub use idempotency_key::idempotency_key;
pub use request_id::{RequestId, X_REQUEST_ID};
pub use serve::{ServeError, bind, serve};

/// The limits of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HttpConfig {
    /// Connections open at once; one more is answered 503 and closed.
    pub max_connections: usize,
    /// Time from a connection being ready for a request to having its headers whole; also how long it may idle.
    pub header_timeout: Duration,
    /// Time from a request's headers to its answer's headers, the reading of the body included; and how long a
    /// client may take nothing of an answer.
    pub request_timeout: Duration,
    /// Bytes of one request's body.
    pub max_body_bytes: usize,
    /// Bytes of all bodies of requests that are not answered yet.
    pub max_buffered_bytes: usize,
    /// How long requests may take to finish once the process has to end.
    pub drain_timeout: Duration,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            max_connections: 10_000,
            header_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
            max_body_bytes: 2 * 1024 * 1024,
            max_buffered_bytes: 256 * 1024 * 1024,
            drain_timeout: Duration::from_secs(10),
        }
    }
}

impl HttpConfig {
    const MAX_CONNECTIONS: Key<usize> = Key::new(
        "http.max_connections",
        Some("10000"),
        "connections",
        "Connections open at once; one more is answered 503 and closed.",
        parse::positive_usize,
    );
    const HEADER_TIMEOUT_MS: Key<Duration> = Key::new(
        "http.header_timeout_ms",
        Some("10000"),
        "ms",
        "Time that a request's headers may take to arrive; also how long a connection may idle.",
        parse::positive_duration_ms,
    );
    const REQUEST_TIMEOUT_MS: Key<Duration> = Key::new(
        "http.request_timeout_ms",
        Some("30000"),
        "ms",
        "Time from a request's headers to its answer's; and how long a client may take nothing of an answer.",
        parse::positive_duration_ms,
    );
    const MAX_BODY_BYTES: Key<usize> = Key::new(
        "http.max_body_bytes",
        Some("2097152"),
        "bytes",
        "Size of one request's body.",
        parse::positive_usize,
    );
    const MAX_BUFFERED_BYTES: Key<usize> = Key::new(
        "http.max_buffered_bytes",
        Some("268435456"),
        "bytes",
        "Size of the bodies of all requests that are not answered yet; beyond it requests are answered 503.",
        parse::positive_usize,
    );
    const DRAIN_TIMEOUT_MS: Key<Duration> = Key::new(
        "http.drain_timeout_ms",
        Some("10000"),
        "ms",
        "Time that requests have to finish once the process has to end.",
        parse::duration_ms,
    );

    /// The settings of this module.
    pub const KEYS: &[KeyDoc] = &[
        Self::MAX_CONNECTIONS.describe(),
        Self::HEADER_TIMEOUT_MS.describe(),
        Self::REQUEST_TIMEOUT_MS.describe(),
        Self::MAX_BODY_BYTES.describe(),
        Self::MAX_BUFFERED_BYTES.describe(),
        Self::DRAIN_TIMEOUT_MS.describe(),
    ];

    /// Reads them; `None` once a fault was noted.
    pub fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let max_connections = reader.read(&Self::MAX_CONNECTIONS);
        let header_timeout = reader.read(&Self::HEADER_TIMEOUT_MS);
        let request_timeout = reader.read(&Self::REQUEST_TIMEOUT_MS);
        let max_body_bytes = reader.read(&Self::MAX_BODY_BYTES);
        let max_buffered_bytes = reader.read(&Self::MAX_BUFFERED_BYTES);
        let drain_timeout = reader.read(&Self::DRAIN_TIMEOUT_MS);
        Some(Self {
            max_connections: max_connections?,
            header_timeout: header_timeout?,
            request_timeout: request_timeout?,
            max_body_bytes: max_body_bytes?,
            max_buffered_bytes: max_buffered_bytes?,
            drain_timeout: drain_timeout?,
        })
    }
}

/// Puts what every process has around a process's own routes, which must not contain `/livez`, `/readyz` or
/// `/metrics`. The pages of the problems are answered where no route matches, so that they need not be merged.
///
/// # Panics
/// If `metrics` has something else under the names of the HTTP metrics: a mistake in the program, like two handlers
/// for one route.
#[expect(clippy::expect_used, reason = "a mistake in the program, found at its first start")]
pub fn router(
    service: &'static str,
    routes: Router,
    metrics: &Metrics,
    health: &Health,
    config: &HttpConfig,
) -> Router {
    let requests =
        RequestMetrics::register(service, metrics).expect("the names of the HTTP metrics are free");
    let health = health.clone();
    let shown = metrics.clone();
    routes
        .route("/livez", get(async || health::livez()))
        .route("/readyz", get(async move || health.readyz()))
        .route(
            "/metrics",
            get(async move || {
                let text = [(CONTENT_TYPE, prometheus::TEXT_FORMAT)];
                (text, shown.render()).into_response()
            }),
        )
        .fallback_service(problem::pages())
        // Handlers become services here and now, so that the layer wraps each of them once and not at every request.
        .with_state(())
        .layer(layer::RequestLayer::new(requests, config))
        .with_state(())
}
