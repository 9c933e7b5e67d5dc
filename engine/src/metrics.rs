//! Metrics of the engine: folding, commits, person rows, ownership and publishing.

use std::time::Duration;

use prometheus::{
    Counter, CounterVec, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
};
use runtime::metrics::{Metrics, MetricsError, SECONDS_BUCKETS};
use schemas::PartitionId;

const RECORDS_BUCKETS: &[f64] = &[1.0, 10.0, 100.0, 1_000.0, 10_000.0, 100_000.0, 1_000_000.0];
const PARTITION: &[&str] = &["partition"];

/// The engine's metrics, of all partitions.
#[derive(Debug, Clone)]
pub struct EngineMetrics {
    folded: IntCounterVec,
    fold_seconds: CounterVec,
    commit_seconds: HistogramVec,
    commit_records: HistogramVec,
    rows_written: IntCounterVec,
    rows_invalidated: IntCounterVec,
    position: IntGaugeVec,
    lag: IntGaugeVec,
    owned: IntGaugeVec,
    halted: IntGaugeVec,
    fetch_stalled: IntGaugeVec,
    fenced: IntCounter,
    claim_retries: IntCounterVec,
    takeovers: IntCounterVec,
    hand_overs: IntCounterVec,
    rejoins: IntCounter,
    publish_seconds: Histogram,
    publish_failures: IntCounter,
    restore_seconds: Histogram,
}

impl EngineMetrics {
    /// Registers the metrics.
    ///
    /// # Errors
    /// When a name is already registered with another type.
    pub fn new(metrics: &Metrics) -> Result<Self, MetricsError> {
        Ok(Self {
            folded: metrics.counter_vec(
                "processor_records_folded_total",
                "Folded records by outcome: applied, duplicate, late (behind the close marker of their budget), dead_lettered. Dead-lettered records are counted when committed.",
                &["partition", "outcome"],
            )?,
            fold_seconds: metrics.float_counter_vec(
                "processor_fold_seconds_total",
                "Time spent folding records.",
                PARTITION,
            )?,
            commit_seconds: metrics.histogram_vec(
                "processor_commit_duration_seconds",
                "Time from the start of a commit until it is known to be stored.",
                PARTITION,
                SECONDS_BUCKETS,
            )?,
            commit_records: metrics.histogram_vec(
                "processor_commit_records",
                "Records by which a commit advances the position.",
                PARTITION,
                RECORDS_BUCKETS,
            )?,
            rows_written: metrics.counter_vec(
                "processor_rows_written_total",
                "Person rows written behind the commit.",
                PARTITION,
            )?,
            rows_invalidated: metrics.counter_vec(
                "processor_rows_invalidated_total",
                "Takeovers that invalidated the person rows because they do not match the totals; people are replayed from the log.",
                PARTITION,
            )?,
            position: metrics.gauge_vec("processor_position", "The committed position.", PARTITION)?,
            lag: metrics.gauge_vec(
                "processor_lag_records",
                "Last known high watermark of the log minus the committed position.",
                PARTITION,
            )?,
            owned: metrics.gauge_vec(
                "processor_partition_owned",
                "1 while this process owns and folds the partition.",
                PARTITION,
            )?,
            halted: metrics.gauge_vec(
                "processor_partition_halted",
                "1 while the partition is assigned to this process but cannot be folded: see the log and /readyz.",
                PARTITION,
            )?,
            fetch_stalled: metrics.gauge_vec(
                "processor_fetch_stalled",
                "1 while no record of the partition has been fetched for a minute although its log has some.",
                PARTITION,
            )?,
            fenced: metrics.counter(
                "processor_fenced_total",
                "Times an owner was fenced: another process had claimed its partition.",
            )?,
            claim_retries: metrics.counter_vec(
                "processor_claim_retries_total",
                "Times an assigned partition could not be claimed, or lost its owner, and was to be claimed again in place.",
                &["partition", "cause"],
            )?,
            takeovers: metrics.counter_vec(
                "processor_takeovers_total",
                "Claimed partitions by where their people come from: kept (by the former owner, in this process), read (before the claim), shadow (this process), unread (they are read after the claim, or there are none).",
                &["people"],
            )?,
            hand_overs: metrics.counter_vec(
                "processor_hand_overs_total",
                "Partitions that were folded here until the next owner had claimed them, by outcome: claimed, timed_out, not_read.",
                &["outcome"],
            )?,
            rejoins: metrics.counter("processor_rejoins_total", "Times this process rejoined the consumer group.")?,
            publish_seconds: metrics.histogram(
                "processor_publish_duration_seconds",
                "Time of one successful flush of committed totals to the cache.",
                SECONDS_BUCKETS,
            )?,
            publish_failures: metrics.counter(
                "processor_publish_failures_total",
                "Flushes and confirmations in which the cache rejected at least one budget; rejected totals are sent again.",
            )?,
            restore_seconds: metrics.histogram(
                "processor_takeover_duration_seconds",
                "Time of a takeover of a partition: from reading its people until it is claimed and they are in memory.",
                SECONDS_BUCKETS,
            )?,
        })
    }

    /// Returns the metrics of one partition.
    pub fn partition(&self, partition: PartitionId) -> PartitionMetrics {
        let label = partition.to_string();
        let of = |outcome| self.folded.with_label_values(&[label.as_str(), outcome]);
        let label = &[label.as_str()];
        PartitionMetrics {
            applied: of("applied"),
            duplicates: of("duplicate"),
            late: of("late"),
            dead_lettered: of("dead_lettered"),
            fold_seconds: self.fold_seconds.with_label_values(label),
            commit_seconds: self.commit_seconds.with_label_values(label),
            commit_records: self.commit_records.with_label_values(label),
            rows_written: self.rows_written.with_label_values(label),
            rows_invalidated: self.rows_invalidated.with_label_values(label),
            restore_seconds: self.restore_seconds.clone(),
            position: self.position.with_label_values(label),
            lag: self.lag.with_label_values(label),
            owned: self.owned.with_label_values(label),
            halted: self.halted.with_label_values(label),
            fetch_stalled: self.fetch_stalled.with_label_values(label),
        }
    }

    /// Removes the gauges of a partition that this process no longer has.
    pub(crate) fn forget(&self, partition: PartitionId) {
        let label = partition.to_string();
        let gauges = [&self.position, &self.lag, &self.owned, &self.halted, &self.fetch_stalled];
        for gauge in gauges {
            // An error means that the gauge was never set.
            let _ = gauge.remove_label_values(&[label.as_str()]);
        }
    }

    pub(crate) fn fenced(&self) {
        self.fenced.inc();
    }

    pub(crate) fn taken_over(&self, people: &str) {
        self.takeovers.with_label_values(&[people]).inc();
    }

    pub(crate) fn handed_over(&self, outcome: &str) {
        self.hand_overs.with_label_values(&[outcome]).inc();
    }

    pub(crate) fn claim_retried(&self, partition: PartitionId, cause: &str) {
        self.claim_retries.with_label_values(&[partition.to_string().as_str(), cause]).inc();
    }

    /// Counts a rejoin of the consumer group.
    pub fn rejoined(&self) {
        self.rejoins.inc();
    }

    pub(crate) fn published(&self, took: Duration) {
        self.publish_seconds.observe(took.as_secs_f64());
    }

    pub(crate) fn publish_failed(&self) {
        self.publish_failures.inc();
    }
}

/// Metrics of one partition.
#[derive(Debug, Clone)]
pub struct PartitionMetrics {
    applied: IntCounter,
    duplicates: IntCounter,
    late: IntCounter,
    dead_lettered: IntCounter,
    fold_seconds: Counter,
    commit_seconds: Histogram,
    commit_records: Histogram,
    rows_written: IntCounter,
    rows_invalidated: IntCounter,
    restore_seconds: Histogram,
    position: IntGauge,
    lag: IntGauge,
    owned: IntGauge,
    halted: IntGauge,
    fetch_stalled: IntGauge,
}

impl PartitionMetrics {
    pub(crate) fn folded(&self, applied: u64, duplicates: u64, late: u64, took: Duration) {
        self.applied.inc_by(applied);
        self.duplicates.inc_by(duplicates);
        self.late.inc_by(late);
        self.fold_seconds.inc_by(took.as_secs_f64());
    }

    pub(crate) fn committed(&self, records: u64, dead_lettered: u64, took: Duration) {
        self.dead_lettered.inc_by(dead_lettered);
        self.commit_seconds.observe(took.as_secs_f64());
        self.commit_records.observe(records as f64);
    }

    pub(crate) fn rows_written(&self, rows: usize) {
        self.rows_written.inc_by(rows as u64);
    }

    pub(crate) fn rows_invalidated(&self) {
        self.rows_invalidated.inc();
    }

    pub(crate) fn restored(&self, took: Duration) {
        self.restore_seconds.observe(took.as_secs_f64());
    }

    pub(crate) fn set_progress(&self, position: u64, lag: u64) {
        self.position.set(position as i64);
        self.lag.set(lag as i64);
    }

    pub(crate) fn set_fetch_stalled(&self, stalled: bool) {
        self.fetch_stalled.set(stalled.into());
    }

    pub(crate) fn set_owned(&self) {
        self.owned.set(1);
        self.halted.set(0);
    }

    pub(crate) fn set_halted(&self) {
        self.owned.set(0);
        self.halted.set(1);
        self.fetch_stalled.set(0);
    }

    pub(crate) fn set_unclaimed(&self) {
        self.owned.set(0);
        self.halted.set(0);
        self.fetch_stalled.set(0);
    }
}
