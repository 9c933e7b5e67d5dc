//! Metrics of shadow generations and of the active log.

use std::time::Duration;

use prometheus::{Gauge, IntGauge, IntGaugeVec};
use runtime::metrics::{Metrics, MetricsError};
use schemas::PartitionCount;

use crate::registry::RoleAges;

/// Metrics of the generations that a processor folds.
#[derive(Debug, Clone)]
pub struct GenerationMetrics {
    partitions: IntGauge,
    log_sealed: Gauge,
    submissions_on_later_log: IntGauge,
    shadow_partitions_stopped: IntGauge,
    registry_lost: IntGauge,
    cache_on_later_term: IntGauge,
    oldest: IntGaugeVec,
}

impl GenerationMetrics {
    /// Registers the metrics.
    ///
    /// # Errors
    /// When a name is already registered as another metric.
    pub fn new(metrics: &Metrics) -> Result<Self, MetricsError> {
        Ok(Self {
            partitions: metrics.gauge(
                "processor_partitions",
                "Partitions of the active log, by the generation registry; each needs exactly one owner.",
            )?,
            log_sealed: metrics.float_gauge(
                "processor_log_sealed_seconds",
                "How long the active log has been sealed for a repartition; 0 if it is not. Submissions wait a few seconds and are then answered 503.",
            )?,
            submissions_on_later_log: metrics.gauge(
                "processor_submissions_elsewhere",
                "1 while submissions go to a later log than the active generation's.",
            )?,
            shadow_partitions_stopped: metrics.gauge(
                "processor_partitions_beside_in_trouble",
                "Shadow partitions of this process that are stopped and retried; the log has the reason.",
            )?,
            registry_lost: metrics.gauge(
                "processor_registry_lost",
                "1 while the store's generation registry is missing or older than the one that the process follows.",
            )?,
            cache_on_later_term: metrics.gauge(
                "processor_cache_on_later_term",
                "1 while the cache has totals of a later term than the generation registry's, so that readers see no change.",
            )?,
            oldest: metrics.gauge_vec(
                "processor_generation_oldest_seconds",
                "How long a generation has been building, and how long the data of a retired generation have not been deleted, as far as the process knows; 0 if there is none.",
                &["role"],
            )?,
        })
    }

    /// Sets the partition count of the active log.
    pub fn set_partitions(&self, partitions: PartitionCount) {
        self.partitions.set(i64::from(partitions.get()));
    }

    /// Sets how long the active log has been sealed; zero if it is not.
    pub fn set_log_sealed(&self, duration: Duration) {
        self.log_sealed.set(duration.as_secs_f64());
    }

    /// Sets whether submissions go to a later log than the active generation's.
    pub fn set_submissions_on_later_log(&self, later: bool) {
        self.submissions_on_later_log.set(i64::from(later));
    }

    /// Sets whether the store has lost the generation registry.
    pub fn set_registry_lost(&self, is_lost: bool) {
        self.registry_lost.set(i64::from(is_lost));
    }

    /// Sets whether the cache has totals of a later term than the registry's.
    pub(crate) fn set_cache_on_later_term(&self, later: bool) {
        self.cache_on_later_term.set(i64::from(later));
    }

    /// Sets how long generations have been in the roles that are to end.
    pub(crate) fn set_oldest(&self, RoleAges { building, retired }: RoleAges) {
        for (role, age) in [("building", building), ("retired", retired)] {
            let seconds = i64::try_from(age.as_secs()).unwrap_or(i64::MAX);
            self.oldest.with_label_values(&[role]).set(seconds);
        }
    }

    /// Counts a shadow partition as stopped until the returned guard is dropped.
    pub fn shadow_partition_stopped(&self) -> StoppedGuard {
        self.shadow_partitions_stopped.inc();
        StoppedGuard(self.shadow_partitions_stopped.clone())
    }
}

/// Counts one stopped shadow partition until it is dropped.
#[derive(Debug)]
pub struct StoppedGuard(IntGauge);

impl Drop for StoppedGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}
