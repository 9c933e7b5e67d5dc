//! The record of one request: counted, timed and logged exactly once, whatever becomes of it.

use std::sync::Arc;
use std::time::Instant;

use axum::body::HttpBody;
use axum::response::Response;
use http::{Method, StatusCode};

use super::request_id::RequestId;
use crate::metrics::{RequestMetrics, RouteMetrics, method_label};
use crate::telemetry::ACCESS;

/// What the log and the metrics call a client that went away before its answer, as nginx does.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// One request, from its headers to its answer's.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) id: RequestId,
    pub(super) started: Instant,
    method: &'static str,
    route: Arc<RouteMetrics>,
    metrics: Arc<RequestMetrics>,
    answered: bool,
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
            answered: false,
        }
    }

    /// The route's template.
    pub(super) fn route(&self) -> &str {
        self.route.name()
    }

    /// Notes that the handler panicked. What it said is logged by the panic hook.
    pub(super) fn panicked(&self) {
        self.metrics.panics.inc();
        tracing::error!(id = self.id.as_str(), route = self.route(), "a handler panicked");
    }

    /// Notes the answer.
    pub(super) fn answered(&mut self, response: &Response) {
        self.answered = true;
        self.note(response.status(), response.body().size_hint().exact());
    }

    fn note(&self, status: StatusCode, bytes: Option<u64>) {
        let took = self.started.elapsed();
        self.route.answered(self.method, status, took);
        // The template and not the path, which can hold a person's id.
        tracing::info!(
            target: ACCESS,
            id = self.id.as_str(),
            method = self.method,
            route = self.route(),
            status = status.as_u16(),
            bytes,
            duration_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
        );
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.metrics.in_flight.dec();
        if !self.answered
            && let Ok(status) = StatusCode::from_u16(CLIENT_CLOSED_REQUEST)
        {
            self.note(status, None);
        }
    }
}
