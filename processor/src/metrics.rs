//! What operators see of the processor.

use std::time::Duration;

use prometheus::{
    Counter, CounterVec, Gauge, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec,
};
use runtime::metrics::{Metrics, MetricsError, SECONDS_BUCKETS};
use schemas::{PartitionCount, PartitionId};

const RECORDS_BUCKETS: &[f64] = &[1.0, 10.0, 100.0, 1_000.0, 10_000.0, 100_000.0, 1_000_000.0];
const PARTITION: &[&str] = &["partition"];

/// One that is counted by a gauge until this is dropped.
#[derive(Debug)]
pub(crate) struct Counted(IntGauge);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// All metrics of the processor.
#[derive(Debug, Clone)]
pub struct ProcessorMetrics {
    folded: IntCounterVec,
    fold_seconds: CounterVec,
    commit_seconds: HistogramVec,
    commit_records: HistogramVec,
    rows_written: IntCounterVec,
    position: IntGaugeVec,
    lag: IntGaugeVec,
    owned: IntGaugeVec,
    halted: IntGaugeVec,
    fenced: IntCounter,
    rejoins: IntCounter,
    publish_seconds: Histogram,
    publish_failures: IntCounter,
    restore_seconds: Histogram,
    beside_in_trouble: IntGauge,
    partitions: IntGauge,
    log_sealed: Gauge,
    elsewhere: IntGauge,
}

impl ProcessorMetrics {
    /// Registers them.
    ///
    /// # Errors
    /// When one of them is registered as something else already.
    pub fn new(metrics: &Metrics) -> Result<Self, MetricsError> {
        Ok(Self {
            folded: metrics.counter_vec(
                "processor_records_folded_total",
                "Records by what came of them: applied, duplicate, dead_lettered. The last is counted once committed.",
                &["partition", "outcome"],
            )?,
            fold_seconds: metrics.float_counter_vec(
                "processor_fold_seconds_total",
                "Time spent folding.",
                PARTITION,
            )?,
            commit_seconds: metrics.histogram_vec(
                "processor_commit_duration_seconds",
                "From the start of a commit to the certainty that it is stored.",
                PARTITION,
                SECONDS_BUCKETS,
            )?,
            commit_records: metrics.histogram_vec(
                "processor_commit_records",
                "Records by which a commit moves the position.",
                PARTITION,
                RECORDS_BUCKETS,
            )?,
            rows_written: metrics.counter_vec(
                "processor_rows_written_total",
                "People's rows written behind the commit.",
                PARTITION,
            )?,
            position: metrics.gauge_vec("processor_position", "The committed position.", PARTITION)?,
            lag: metrics.gauge_vec(
                "processor_lag_records",
                "The log's high watermark, as last heard, less the committed position.",
                PARTITION,
            )?,
            owned: metrics.gauge_vec(
                "processor_partition_owned",
                "1 while this process owns the partition and folds it.",
                PARTITION,
            )?,
            halted: metrics.gauge_vec(
                "processor_partition_halted",
                "1 while the partition is assigned to this process but cannot be folded: see the log and /readyz.",
                PARTITION,
            )?,
            fenced: metrics.counter(
                "processor_fenced_total",
                "Times that a partition turned out to have another owner.",
            )?,
            rejoins: metrics.counter("processor_rejoins_total", "Times that the group was joined again.")?,
            publish_seconds: metrics.histogram(
                "processor_publish_duration_seconds",
                "One round of telling the cache what is committed.",
                SECONDS_BUCKETS,
            )?,
            publish_failures: metrics.counter(
                "processor_publish_failures_total",
                "Rounds of which the cache did not take everything; the rest is told again.",
            )?,
            restore_seconds: metrics.histogram(
                "processor_takeover_duration_seconds",
                "From the claim of a partition to the end of reading people's rows.",
                SECONDS_BUCKETS,
            )?,
            partitions: metrics.gauge(
                "processor_partitions",
                "Partitions of the log that is counted, as the roster has it: each has to have one owner.",
            )?,
            log_sealed: metrics.float_gauge(
                "processor_log_sealed_seconds",
                "How long the log has been sealed for a repartition: submissions wait some seconds, and are then refused; 0 if it is not.",
            )?,
            elsewhere: metrics.gauge(
                "processor_submissions_elsewhere",
                "1 while submissions go to a later log than the one that is counted.",
            )?,
            beside_in_trouble: metrics.gauge(
                "processor_partitions_beside_in_trouble",
                "Partitions of generations that do not answer which this process cannot fold now: see the log.",
            )?,
        })
    }

    /// One partition's part of them.
    pub fn partition(&self, partition: PartitionId) -> PartitionMetrics {
        let label = partition.to_string();
        let of = |outcome| self.folded.with_label_values(&[label.as_str(), outcome]);
        let label = &[label.as_str()];
        PartitionMetrics {
            applied: of("applied"),
            duplicates: of("duplicate"),
            dead_lettered: of("dead_lettered"),
            fold_seconds: self.fold_seconds.with_label_values(label),
            commit_seconds: self.commit_seconds.with_label_values(label),
            commit_records: self.commit_records.with_label_values(label),
            rows_written: self.rows_written.with_label_values(label),
            restore_seconds: self.restore_seconds.clone(),
            position: self.position.with_label_values(label),
            lag: self.lag.with_label_values(label),
            owned: self.owned.with_label_values(label),
            halted: self.halted.with_label_values(label),
        }
    }

    /// A partition is gone from this process: what it said is no longer true here.
    pub(crate) fn forget(&self, partition: PartitionId) {
        let label = partition.to_string();
        for gauge in [&self.position, &self.lag, &self.owned, &self.halted] {
            // Absent only if it was never set, which is as good.
            let _ = gauge.remove_label_values(&[label.as_str()]);
        }
    }

    /// One more partition beside is in trouble, as long as what is returned is kept.
    pub(crate) fn beside_in_trouble(&self) -> Counted {
        self.beside_in_trouble.inc();
        Counted(self.beside_in_trouble.clone())
    }

    /// So many partitions has the log that is counted.
    pub(crate) fn partitions(&self, partitions: PartitionCount) {
        self.partitions.set(i64::from(partitions.get()));
    }

    /// The log has been sealed for so long; zero: it is not.
    pub(crate) fn log_sealed(&self, so_long: Duration) {
        self.log_sealed.set(so_long.as_secs_f64());
    }

    /// Whether submissions go to a later log than the one that is counted.
    pub(crate) fn submissions_elsewhere(&self, so: bool) {
        self.elsewhere.set(i64::from(so));
    }

    pub(crate) fn fenced(&self) {
        self.fenced.inc();
    }

    pub(crate) fn rejoined(&self) {
        self.rejoins.inc();
    }

    pub(crate) fn published(&self, took: Duration) {
        self.publish_seconds.observe(took.as_secs_f64());
    }

    pub(crate) fn publish_failed(&self) {
        self.publish_failures.inc();
    }
}

/// One partition's metrics.
#[derive(Debug, Clone)]
pub struct PartitionMetrics {
    applied: IntCounter,
    duplicates: IntCounter,
    dead_lettered: IntCounter,
    fold_seconds: Counter,
    commit_seconds: Histogram,
    commit_records: Histogram,
    rows_written: IntCounter,
    restore_seconds: Histogram,
    position: IntGauge,
    lag: IntGauge,
    owned: IntGauge,
    halted: IntGauge,
}

impl PartitionMetrics {
    pub(crate) fn folded(&self, applied: u64, duplicates: u64, took: Duration) {
        self.applied.inc_by(applied);
        self.duplicates.inc_by(duplicates);
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

    pub(crate) fn restored(&self, took: Duration) {
        self.restore_seconds.observe(took.as_secs_f64());
    }

    pub(crate) fn set_progress(&self, position: u64, lag: u64) {
        self.position.set(position as i64);
        self.lag.set(lag as i64);
    }

    pub(crate) fn set_owned(&self) {
        self.owned.set(1);
        self.halted.set(0);
    }

    pub(crate) fn set_halted(&self) {
        self.owned.set(0);
        self.halted.set(1);
    }

    pub(crate) fn set_unclaimed(&self) {
        self.owned.set(0);
        self.halted.set(0);
    }
}
