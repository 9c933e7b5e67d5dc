//! The numbers that a process shows at `/metrics`, in Prometheus' text format.
//!
//! Every name starts with `allocator_`. Asking twice for the same metric gives the same one, so that several parts of
//! one process may share it; asking for another one under a taken name is an error, not a panic.

mod http;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;
use prometheus::{
    CounterVec, Encoder, Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec,
    IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

pub(crate) use http::{ConnectionMetrics, RequestMetrics, RouteMetrics, method_label};

/// Bucket bounds in seconds that suit most waits here: 50 µs to 10 s.
pub const SECONDS_BUCKETS: &[f64] = &[
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
    1.0, 2.5, 5.0, 10.0,
];

/// The metrics of one process. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Metrics(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    service: String,
    registry: Registry,
    registered: Mutex<HashMap<String, Registered>>,
}

/// Why a metric could not be registered.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    /// The name is taken by a metric of another kind, with other labels, or with another help text.
    #[error("a different metric is already registered as {0}")]
    Taken(String),
    /// The name, a label or the buckets are not valid.
    #[error("metric {name}: {source}")]
    Invalid {
        /// The full name of the metric.
        name: String,
        /// What the metrics library says.
        source: prometheus::Error,
    },
}

#[derive(Debug, Clone)]
struct Registered {
    shape: String,
    metric: AnyMetric,
}

#[derive(Debug, Clone)]
enum AnyMetric {
    Counter(IntCounter),
    CounterVec(IntCounterVec),
    FloatCounterVec(CounterVec),
    Gauge(IntGauge),
    FloatGauge(Gauge),
    GaugeVec(IntGaugeVec),
    Histogram(Histogram),
    HistogramVec(HistogramVec),
}

macro_rules! any_metric {
    ($($variant:ident($metric:ty)),+ $(,)?) => {$(
        impl From<$metric> for AnyMetric {
            fn from(metric: $metric) -> Self {
                Self::$variant(metric)
            }
        }

        impl TryFrom<AnyMetric> for $metric {
            type Error = ();

            fn try_from(any: AnyMetric) -> Result<Self, ()> {
                match any {
                    AnyMetric::$variant(metric) => Ok(metric),
                    _ => Err(()),
                }
            }
        }
    )+};
}

any_metric! {
    Counter(IntCounter),
    CounterVec(IntCounterVec),
    FloatCounterVec(CounterVec),
    Gauge(IntGauge),
    FloatGauge(Gauge),
    GaugeVec(IntGaugeVec),
    Histogram(Histogram),
    HistogramVec(HistogramVec),
}

impl Metrics {
    /// The metrics of a process, with what the operating system says about it and with
    /// `allocator_build_info{service,version}`.
    pub fn new(service: &str) -> Self {
        let metrics = Self(Arc::new(Inner {
            service: service.to_owned(),
            registry: Registry::new(),
            registered: Mutex::default(),
        }));
        let process = metrics.0.registry.register(Box::new(ProcessCollector::for_self()));
        let build = metrics
            .gauge_vec("build_info", "Always 1; the labels say what runs.", &["service", "version"])
            .map(|info| info.with_label_values(&[service, env!("CARGO_PKG_VERSION")]).set(1));
        // In an empty registry neither can clash; should it happen all the same, it is worth a line, not an end.
        if let Err(error) = process {
            tracing::error!(%error, "no process metrics");
        }
        if let Err(error) = build {
            tracing::error!(%error, "no build information");
        }
        metrics
    }

    /// The name of the process's service.
    pub fn service(&self) -> &str {
        &self.0.service
    }

    /// The registry itself, for collectors of other kinds.
    pub fn registry(&self) -> &Registry {
        &self.0.registry
    }

    /// A count that only grows. The name gets `allocator_` before it unless it has it; so in all that follow.
    ///
    /// # Errors
    /// If the name is taken or not valid; so in all that follow.
    pub fn counter(&self, name: &str, help: &str) -> Result<IntCounter, MetricsError> {
        self.register(name, help, &[], "counter", IntCounter::with_opts)
    }

    /// A count that only grows, for each combination of label values.
    ///
    /// # Errors
    /// As [`counter`](Self::counter).
    pub fn counter_vec(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<IntCounterVec, MetricsError> {
        self.register(name, help, labels, "counter", |opts| IntCounterVec::new(opts, labels))
    }

    /// A sum that only grows and may have decimals, for example seconds, for each combination of label values.
    ///
    /// # Errors
    /// As [`counter`](Self::counter).
    pub fn float_counter_vec(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<CounterVec, MetricsError> {
        self.register(name, help, labels, "float counter", |opts| CounterVec::new(opts, labels))
    }

    /// A whole number that goes up and down.
    ///
    /// # Errors
    /// As [`counter`](Self::counter).
    pub fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, MetricsError> {
        self.register(name, help, &[], "gauge", IntGauge::with_opts)
    }

    /// A number that goes up and down and may have decimals, for example seconds.
    ///
    /// # Errors
    /// As [`counter`](Self::counter).
    pub fn float_gauge(&self, name: &str, help: &str) -> Result<Gauge, MetricsError> {
        self.register(name, help, &[], "float gauge", Gauge::with_opts)
    }

    /// A whole number that goes up and down, for each combination of label values.
    ///
    /// # Errors
    /// As [`counter`](Self::counter).
    pub fn gauge_vec(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<IntGaugeVec, MetricsError> {
        self.register(name, help, labels, "gauge", |opts| IntGaugeVec::new(opts, labels))
    }

    /// A distribution over buckets with the given upper bounds; [`SECONDS_BUCKETS`] suits most waits.
    ///
    /// # Errors
    /// As [`counter`](Self::counter).
    pub fn histogram(
        &self,
        name: &str,
        help: &str,
        buckets: &[f64],
    ) -> Result<Histogram, MetricsError> {
        self.register(name, help, &[], &format!("histogram {buckets:?}"), |opts| {
            Histogram::with_opts(HistogramOpts::from(opts).buckets(buckets.to_vec()))
        })
    }

    /// A distribution for each combination of label values.
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
        self.register(name, help, labels, &format!("histogram {buckets:?}"), |opts| {
            HistogramVec::new(HistogramOpts::from(opts).buckets(buckets.to_vec()), labels)
        })
    }

    /// Everything as it stands, in Prometheus' text format.
    pub fn render(&self) -> Vec<u8> {
        let mut text = Vec::with_capacity(16 * 1024);
        if let Err(error) = TextEncoder::new().encode(&self.0.registry.gather(), &mut text) {
            tracing::error!(%error, "metrics could not be rendered whole");
        }
        text
    }

    fn register<M>(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        kind: &str,
        make: impl FnOnce(Opts) -> prometheus::Result<M>,
    ) -> Result<M, MetricsError>
    where
        M: Collector + Clone + Into<AnyMetric> + TryFrom<AnyMetric> + 'static,
    {
        let name = if name.starts_with("allocator_") {
            name.to_owned()
        } else {
            format!("allocator_{name}")
        };
        let shape = format!("{kind} {labels:?} {help}");
        let mut registered = self.0.registered.lock().unwrap_or_else(PoisonError::into_inner);
        match registered.entry(name) {
            Entry::Occupied(taken) if taken.get().shape == shape => {
                M::try_from(taken.get().metric.clone())
                    .map_err(|_| MetricsError::Taken(taken.key().clone()))
            }
            Entry::Occupied(taken) => Err(MetricsError::Taken(taken.key().clone())),
            Entry::Vacant(free) => {
                let name = free.key().clone();
                let metric = make(Opts::new(name.clone(), help))
                    .and_then(|metric| {
                        self.0.registry.register(Box::new(metric.clone()))?;
                        Ok(metric)
                    })
                    .map_err(|source| MetricsError::Invalid { name, source })?;
                free.insert(Registered { shape, metric: metric.clone().into() });
                Ok(metric)
            }
        }
    }
}
