//! Metrics of the read API.

use prometheus::{Gauge, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};
use runtime::metrics::{Metrics, MetricsError, SECONDS_BUCKETS};

/// Metrics of the read API.
#[derive(Debug, Clone)]
pub struct ApiMetrics {
    /// Reads by tier and outcome.
    pub reads: IntCounterVec,
    /// Duration of one read, by tier.
    pub tier_seconds: HistogramVec,
    /// Circuit breaker state, by tier.
    pub breaker_state: IntGaugeVec,
    /// Budgets with an answer in memory.
    pub memory_entries: IntGauge,
    /// The age of the oldest answer among recently read budgets.
    pub staleness_seconds: Gauge,
    /// Downloads of published exports in progress.
    pub downloads: IntGauge,
    /// Open streams of answers.
    pub streams: IntGauge,
    /// Reads waiting for a submission.
    pub waiting: IntGauge,
    /// Reads answered from memory; a child of `reads`, kept here because it is on the hot path.
    pub memory_hits: IntCounter,
    /// Reads answered by a tier behind memory, or not at all.
    pub memory_misses: IntCounter,
    /// Reads answered with memory's last answer because every other tier failed.
    pub memory_stale: IntCounter,
}

impl ApiMetrics {
    /// Registers the metrics.
    ///
    /// # Errors
    /// If a name is taken by a different metric.
    pub fn register(metrics: &Metrics) -> Result<Self, MetricsError> {
        let reads = metrics.counter_vec(
            "api_reads_total",
            "Reads of each tier by outcome: hit, miss, behind (older than the answer in memory), failed, timeout, \
             passed_over (circuit breaker open), overloaded (too many concurrent reads), abandoned (the client \
             disconnected); for tier=memory, one per budget that a client reads: hit, miss, stale (no other tier answered).",
            &["tier", "outcome"],
        )?;
        let memory = |outcome| reads.with_label_values(&["memory", outcome]);
        let (memory_hits, memory_misses, memory_stale) =
            (memory("hit"), memory("miss"), memory("stale"));
        Ok(Self {
            memory_hits,
            memory_misses,
            memory_stale,
            reads,
            tier_seconds: metrics.histogram_vec(
                "api_tier_seconds",
                "Duration of one read of a tier.",
                &["tier"],
                SECONDS_BUCKETS,
            )?,
            breaker_state: metrics.gauge_vec(
                "api_breaker_state",
                "State of a tier's circuit breaker: 0 closed, 1 half-open, 2 open.",
                &["tier"],
            )?,
            memory_entries: metrics
                .gauge("api_memory_entries", "Budgets with an answer in memory.")?,
            staleness_seconds: metrics.float_gauge(
                "api_staleness_seconds",
                "Age of the oldest answer in memory among recently read budgets.",
            )?,
            downloads: metrics
                .gauge("api_downloads", "Downloads of published exports in progress.")?,
            streams: metrics.gauge("api_streams", "Open streams of a budget's answers.")?,
            waiting: metrics
                .gauge("api_waiting_reads", "Reads waiting for a submission to be counted.")?,
        })
    }
}
