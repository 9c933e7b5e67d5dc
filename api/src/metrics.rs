//! The numbers that the reads show.

use prometheus::{Gauge, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};
use runtime::metrics::{Metrics, MetricsError, SECONDS_BUCKETS};

/// The metrics of the reads.
#[derive(Debug, Clone)]
pub struct ApiMetrics {
    /// Reads by tier and what came of them.
    pub reads: IntCounterVec,
    /// How long a tier took.
    pub tier_seconds: HistogramVec,
    /// How each tier's breaker stands.
    pub breaker_state: IntGaugeVec,
    /// Budgets with an answer in memory.
    pub memory_entries: IntGauge,
    /// The age of the oldest answer among the budgets read lately.
    pub staleness_seconds: Gauge,
    /// Published exports that are being read.
    pub downloads: IntGauge,
    /// Reads that wait for a submission.
    pub waiting: IntGauge,
    /// Reads answered from memory; one of `reads`, at hand because it is the hot one.
    pub memory_hits: IntCounter,
    /// Reads that a tier behind it answered, or nobody.
    pub memory_misses: IntCounter,
    /// Reads answered with the last known answer because every other tier failed.
    pub memory_stale: IntCounter,
}

impl ApiMetrics {
    /// Registers them.
    ///
    /// # Errors
    /// If a name is taken by a different metric.
    pub fn register(metrics: &Metrics) -> Result<Self, MetricsError> {
        let reads = metrics.counter_vec(
            "api_reads_total",
            "Reads of each tier by outcome: hit, miss, behind (older than what readers were shown), failed, timeout, \
             passed_over (breaker open), abandoned (the client went away); of memory one for each budget that a \
             client reads: hit, miss, stale (nothing behind it answered).",
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
                "How long one read of a tier took.",
                &["tier"],
                SECONDS_BUCKETS,
            )?,
            breaker_state: metrics.gauge_vec(
                "api_breaker_state",
                "A tier's breaker: 0 closed, 1 on trial, 2 open.",
                &["tier"],
            )?,
            memory_entries: metrics
                .gauge("api_memory_entries", "Budgets with an answer in memory.")?,
            staleness_seconds: metrics.float_gauge(
                "api_staleness_seconds",
                "Time since the oldest answer was confirmed, among the budgets read lately.",
            )?,
            downloads: metrics.gauge("api_downloads", "Published exports that are being read.")?,
            waiting: metrics
                .gauge("api_waiting_reads", "Reads that wait for a submission to be counted.")?,
        })
    }
}
