//! The HTTP server's metrics. Resolved once per route, so that a request costs a few atomic additions.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::{Method, StatusCode};
use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge};

use super::{Metrics, MetricsError, SECONDS_BUCKETS};

/// Metrics of a listening socket's connections.
#[derive(Debug, Clone)]
pub(crate) struct ConnectionMetrics {
    pub(crate) open: IntGauge,
    pub(crate) accepted: IntCounter,
    pub(crate) refused: IntCounter,
    pub(crate) refused_by_address: IntCounter,
    pub(crate) failed_accepts: IntCounter,
    pub(crate) force_closed: IntCounter,
}

impl ConnectionMetrics {
    pub(crate) fn register(metrics: &Metrics) -> Result<Self, MetricsError> {
        let service = &[metrics.service()];
        let counter = |name, help| {
            metrics
                .counter_vec(name, help, &["service"])
                .map(|counters| counters.with_label_values(service))
        };
        Ok(Self {
            open: metrics
                .gauge_vec("http_connections_open", "Open connections.", &["service"])?
                .with_label_values(service),
            accepted: counter("http_connections_accepted_total", "Connections accepted.")?,
            refused: counter(
                "http_connections_refused_total",
                "Connections answered 503 and closed because of the connection limit.",
            )?,
            refused_by_address: counter(
                "http_connections_refused_by_address_total",
                "Connections answered 503 and closed because of the limit of their address.",
            )?,
            failed_accepts: counter("http_accept_errors_total", "Failed accepts.")?,
            force_closed: counter(
                "http_connections_cut_total",
                "Connections closed because they outlasted the drain timeout.",
            )?,
        })
    }
}

/// Metrics of a service's requests.
#[derive(Debug, Clone)]
pub(crate) struct RequestMetrics {
    service: &'static str,
    requests: IntCounterVec,
    durations: HistogramVec,
    pub(crate) in_flight: IntGauge,
    pub(crate) panics: IntCounter,
}

impl RequestMetrics {
    pub(crate) fn register(service: &'static str, metrics: &Metrics) -> Result<Self, MetricsError> {
        Ok(Self {
            service,
            requests: metrics.counter_vec(
                "http_requests_total",
                "Completed requests; status 499 is a client that disconnected before the response.",
                &["service", "route", "method", "status"],
            )?,
            durations: metrics.histogram_vec(
                "http_request_duration_seconds",
                "Time from a request's headers to its response headers.",
                &["service", "route"],
                SECONDS_BUCKETS,
            )?,
            in_flight: metrics
                .gauge_vec("http_requests_in_flight", "Requests in flight.", &["service"])?
                .with_label_values(&[service]),
            panics: metrics
                .counter_vec("http_panics_total", "Panics of request handlers.", &["service"])?
                .with_label_values(&[service]),
        })
    }

    /// Resolves the metrics of one route, to be kept by the route's owner.
    pub(crate) fn route(&self, route: &str) -> RouteMetrics {
        RouteMetrics {
            route: route.into(),
            duration: self.durations.with_label_values(&[self.service, route]),
            requests: self.requests.clone(),
            service: self.service,
            counters: OnceLock::new(),
        }
    }
}

/// The resolved metrics of one route.
#[derive(Debug)]
pub(crate) struct RouteMetrics {
    route: Arc<str>,
    duration: Histogram,
    requests: IntCounterVec,
    service: &'static str,
    counters: OnceLock<Box<CounterNode>>,
}

/// A node of an append-only list, read without a lock.
///
/// A route has few combinations of method and status, so walking the list is faster than hashing. Methods are a closed
/// set and statuses have three digits, so the list is bounded.
#[derive(Debug)]
struct CounterNode {
    method: &'static str,
    status: StatusCode,
    counter: IntCounter,
    next: OnceLock<Box<CounterNode>>,
}

impl RouteMetrics {
    /// Returns the route's template, never a path.
    pub(crate) fn name(&self) -> &str {
        &self.route
    }

    /// Counts one completed request.
    pub(crate) fn record(&self, method: &'static str, status: StatusCode, elapsed: Duration) {
        self.duration.observe(elapsed.as_secs_f64());
        let mut link = &self.counters;
        loop {
            let node = link.get_or_init(|| {
                let labels = [self.service, &self.route, method, status.as_str()];
                Box::new(CounterNode {
                    method,
                    status,
                    counter: self.requests.with_label_values(&labels),
                    next: OnceLock::new(),
                })
            });
            if node.status == status && node.method == method {
                node.counter.inc();
                return;
            }
            link = &node.next;
        }
    }
}

/// Maps a method to a label out of a closed set, whatever the client sends.
pub(crate) fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        Method::PATCH => "PATCH",
        Method::TRACE => "TRACE",
        Method::CONNECT => "CONNECT",
        _ => "OTHER",
    }
}
