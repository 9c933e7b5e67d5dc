//! The metrics of a process, served at `/metrics` in Prometheus' text format.
//!
//! Every name starts with `allocator_`. Each metric is registered once; registering a taken name is an error. What is
//! measured is up to the caller.

mod http;

use std::sync::Arc;

use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;
use prometheus::{
    CounterVec, Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter,
    IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

pub(crate) use http::{ConnectionMetrics, RequestMetrics, RouteMetrics, method_label};

/// Bucket bounds in seconds for most latencies: 50 µs to 10 s.
pub const SECONDS_BUCKETS: &[f64] = &[
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
    1.0, 2.5, 5.0, 10.0,
];

/// The metrics of one process. Cheap to clone; clones share one registry.
#[derive(Debug, Clone)]
pub struct Metrics(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    service: String,
    registry: Registry,
}

/// A metric could not be registered: the name is taken, or the name, a label or a bucket is invalid.
#[derive(Debug, thiserror::Error)]
#[error("failed to register metric {name}: {source}")]
pub struct MetricsError {
    /// The full name of the metric.
    pub name: String,
    /// The error of the metrics library.
    pub source: prometheus::Error,
}

impl Metrics {
    /// Creates the registry, with the operating system's process metrics and `allocator_build_info{service,version}`.
    pub fn new(service: &str) -> Self {
        let metrics =
            Self(Arc::new(Inner { service: service.to_owned(), registry: Registry::new() }));
        let process = metrics.0.registry.register(Box::new(ProcessCollector::for_self()));
        let build = metrics
            .gauge_vec(
                "build_info",
                "Always 1; the labels identify the running build.",
                &["service", "version"],
            )
            .map(|info| info.with_label_values(&[service, env!("CARGO_PKG_VERSION")]).set(1));
        // Neither can fail in an empty registry. A failure is logged, since a process can run without these metrics.
        if let Err(error) = process {
            tracing::error!(%error, "failed to register the process metrics");
        }
        if let Err(error) = build {
            tracing::error!(%error, "failed to register the build info metric");
        }
        metrics
    }

    /// Returns the service name of the process.
    pub fn service(&self) -> &str {
        &self.0.service
    }

    /// Returns the registry, for custom collectors.
    pub fn registry(&self) -> &Registry {
        &self.0.registry
    }

    /// Registers a counter. All metric names get the prefix `allocator_` unless they have it.
    ///
    /// # Errors
    /// If the name is taken or invalid.
    pub fn counter(&self, name: &str, help: &str) -> Result<IntCounter, MetricsError> {
        self.register(name, help, IntCounter::with_opts)
    }

    /// Registers a counter with labels.
    ///
    /// # Errors
    /// As [`counter`](Self::counter).
    pub fn counter_vec(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<IntCounterVec, MetricsError> {
        self.register(name, help, |opts| IntCounterVec::new(opts, labels))
    }

    /// Registers a counter of fractional amounts, for example seconds, with labels.
    ///
    /// # Errors
    /// As [`counter`](Self::counter).
    pub fn float_counter_vec(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<CounterVec, MetricsError> {
        self.register(name, help, |opts| CounterVec::new(opts, labels))
    }

    /// Registers an integer gauge.
    ///
    /// # Errors
    /// As [`counter`](Self::counter).
    pub fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, MetricsError> {
        self.register(name, help, IntGauge::with_opts)
    }

    /// Registers a gauge of fractional values, for example seconds.
    ///
    /// # Errors
    /// As [`counter`](Self::counter).
    pub fn float_gauge(&self, name: &str, help: &str) -> Result<Gauge, MetricsError> {
        self.register(name, help, Gauge::with_opts)
    }

    /// Registers an integer gauge with labels.
    ///
    /// # Errors
    /// As [`counter`](Self::counter).
    pub fn gauge_vec(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<IntGaugeVec, MetricsError> {
        self.register(name, help, |opts| IntGaugeVec::new(opts, labels))
    }

    /// Registers a gauge of fractional values, for example shares, with labels.
    ///
    /// # Errors
    /// As [`counter`](Self::counter).
    pub fn float_gauge_vec(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<GaugeVec, MetricsError> {
        self.register(name, help, |opts| GaugeVec::new(opts, labels))
    }

    /// Registers a histogram with the given upper bounds; [`SECONDS_BUCKETS`] suits most latencies.
    ///
    /// # Errors
    /// As [`counter`](Self::counter).
    pub fn histogram(
        &self,
        name: &str,
        help: &str,
        buckets: &[f64],
    ) -> Result<Histogram, MetricsError> {
        self.register(name, help, |opts| {
            Histogram::with_opts(HistogramOpts::from(opts).buckets(buckets.to_vec()))
        })
    }

    /// Registers a histogram with labels.
    ///
    /// # Errors
    /// As [`counter`](Self::counter).
    pub fn histogram_vec(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        buckets: &[f64],
    ) -> Result<HistogramVec, MetricsError> {
        self.register(name, help, |opts| {
            HistogramVec::new(HistogramOpts::from(opts).buckets(buckets.to_vec()), labels)
        })
    }

    /// Renders all metrics in Prometheus' text format.
    pub fn render(&self) -> Vec<u8> {
        let mut text = Vec::with_capacity(16 * 1024);
        if let Err(error) = TextEncoder::new().encode(&self.0.registry.gather(), &mut text) {
            tracing::error!(%error, "failed to render metrics");
        }
        text
    }

    fn register<M: Collector + Clone + 'static>(
        &self,
        name: &str,
        help: &str,
        make: impl FnOnce(Opts) -> prometheus::Result<M>,
    ) -> Result<M, MetricsError> {
        let name = if name.starts_with("allocator_") {
            name.to_owned()
        } else {
            format!("allocator_{name}")
        };
        let registered = make(Opts::new(name.clone(), help)).and_then(|metric| {
            self.0.registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        });
        registered.map_err(|source| MetricsError { name, source })
    }
}
