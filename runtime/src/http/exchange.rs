//! Counts, times and logs each request exactly once, also if its client disconnects.

use std::sync::Arc;
use std::time::Instant;

use axum::body::HttpBody;
use axum::response::Response;
use http::{Method, StatusCode};

use super::request_id::RequestId;
use crate::metrics::{RequestMetrics, RouteMetrics, method_label};
use crate::telemetry::ACCESS;

/// The status recorded for a client that disconnected before the response, as in nginx.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// One request, from its headers to the response headers.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) id: RequestId,
    pub(super) started: Instant,
    method: &'static str,
    route: Arc<RouteMetrics>,
    metrics: Arc<RequestMetrics>,
    responded: bool,
}

impl Exchange {
    pub(super) fn begin(
        id: RequestId,
        method: &Method,
        route: Arc<RouteMetrics>,
        metrics: Arc<RequestMetrics>,
    ) -> Self {
        metrics.in_flight.inc();
        Self {
            id,
            started: Instant::now(),
            method: method_label(method),
            route,
            metrics,
            responded: false,
        }
    }

    /// Returns the route's template.
    pub(super) fn route(&self) -> &str {
        self.route.name()
    }

    /// Returns whether the request asks for the methods of a route.
    pub(super) fn is_options(&self) -> bool {
        self.method == Method::OPTIONS.as_str()
    }

    /// Records a panic of the handler. The panic hook logs the message.
    pub(super) fn record_panic(&self) {
        self.metrics.panics.inc();
        tracing::error!(id = self.id.as_str(), route = self.route(), "request handler panicked");
    }

    /// Records the response.
    pub(super) fn record_response(&mut self, response: &Response) {
        self.responded = true;
        self.record(response.status(), response.body().size_hint().exact());
    }

    fn record(&self, status: StatusCode, bytes: Option<u64>) {
        let elapsed = self.started.elapsed();
        self.route.record(self.method, status, elapsed);
        // The route's template, not the path, which can contain a person's id.
        tracing::info!(
            target: ACCESS,
            id = self.id.as_str(),
            method = self.method,
            route = self.route(),
            status = status.as_u16(),
            bytes,
            duration_us = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX),
        );
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.metrics.in_flight.dec();
        if !self.responded
            && let Ok(status) = StatusCode::from_u16(CLIENT_CLOSED_REQUEST)
        {
            self.record(status, None);
        }
    }
}
