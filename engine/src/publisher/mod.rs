//! Publishing committed totals to the cache: the newest totals of each budget and partition, many partitions in one
//! call.
//!
//! Nothing queues up: newer totals replace pending ones. Changed totals are flushed as they come. Everything else that
//! is owned is confirmed on a timer, in calls of its own: positions are compared, and only what the cache lacks is
//! sent. So a cache that lost its data heals by itself, and changes do not wait for that. Budgets without any record
//! are published too, as empty totals: readers take an aggregate that lacks a partition for a miss.

mod confirmation;
mod pending_totals;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use schemas::{BudgetId, BudgetTotals, PartitionCount, Term};
use storage::cache::{Cache, CacheError};
use storage::control::BudgetDefinitions;
use storage::store::PartitionRef;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::metrics::EngineMetrics;
use pending_totals::PendingTotals;

/// Minimum time between two flushes: commits in between are published in one call.
const FLUSH_INTERVAL: Duration = Duration::from_millis(5);
/// Delay before rejected totals are sent again, and between flushes while the cache accepts nothing.
const RETRY_DELAY: Duration = Duration::from_millis(200);

/// Publishes the committed totals of the partitions that this process owns.
pub struct Publisher {
    cache: Arc<dyn Cache>,
    definitions: Arc<dyn BudgetDefinitions>,
    metrics: EngineMetrics,
    totals: Mutex<PendingTotals>,
    totals_changed: Notify,
    confirmation_due: Notify,
}

/// The result of one flush.
struct FlushOutcome {
    /// Whether the cache accepted any budget.
    published_any: bool,
    /// The first error.
    error: Option<CacheError>,
}

impl Publisher {
    /// Creates a publisher without totals. It publishes nothing before [`Self::set_active_term`].
    pub fn new(
        cache: Arc<dyn Cache>,
        definitions: Arc<dyn BudgetDefinitions>,
        metrics: EngineMetrics,
    ) -> Self {
        let totals = Mutex::default();
        let (totals_changed, confirmation_due) = (Notify::new(), Notify::new());
        Self { cache, definitions, metrics, totals, totals_changed, confirmation_due }
    }

    /// Publishes the totals of this term's generation from now on, and of no other.
    pub fn set_active_term(&self, term: Term, partitions: PartitionCount) {
        self.totals.lock().set_active_term(term, partitions);
    }

    /// Adds committed totals of a partition: its changed budgets, or every budget if the partition is new here. Changes
    /// are published by the next flush; a new partition is confirmed next. No I/O.
    pub fn publish(&self, partition: PartitionRef, totals: Vec<(BudgetId, BudgetTotals)>) {
        self.totals.lock().add(partition, totals, &self.definitions.catalog());
        self.totals_changed.notify_one();
        self.confirmation_due.notify_one();
    }

    /// Stops confirming a released partition.
    ///
    /// What is pending of it is still published: it is committed, and the next owner may take a while.
    pub fn forget(&self, partition: PartitionRef) {
        self.totals.lock().release(partition);
    }

    /// Flushes changed totals and confirms all others until `stop` is cancelled, and what is pending a last time then.
    pub async fn run(&self, confirm_interval: Duration, stop: CancellationToken) {
        tokio::join!(self.flush_until(&stop), self.confirm_until(confirm_interval, &stop));
    }

    async fn flush_until(&self, stop: &CancellationToken) {
        let (mut healthy, mut retry_at) = (true, Instant::now());
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = self.totals_changed.notified() => {}
                () = sleep_until(retry_at), if !healthy => {}
            }
            let FlushOutcome { published_any, error } = self.flush().await;
            match &error {
                None if !healthy => tracing::info!("publishing totals to the cache recovered"),
                Some(error) if healthy => {
                    tracing::warn!(%error, "failed to publish totals to the cache, retrying");
                }
                _ => {}
            }
            healthy = error.is_none();
            if !healthy {
                self.metrics.publish_failed();
                retry_at = Instant::now() + RETRY_DELAY;
            }
            let pause = if healthy || published_any { FLUSH_INTERVAL } else { RETRY_DELAY };
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = sleep(pause) => {}
            }
        }
        if let Some(error) = self.flush().await.error {
            tracing::warn!(%error, "failed to publish the last totals, the next owner publishes them");
        }
    }

    /// Publishes changed totals. A budget that the cache rejects does not block the others.
    async fn flush(&self) -> FlushOutcome {
        let started = Instant::now();
        let changed = self.totals.lock().take_changed();
        let mut outcome = FlushOutcome { published_any: false, error: None };
        for totals in changed {
            let partitions = totals.to_partition_totals(|_| true);
            match self.cache.publish(&totals.budget, totals.count, &partitions).await {
                Ok(()) => outcome.published_any = true,
                Err(error) => {
                    self.totals.lock().restore_changed(totals);
                    outcome.error.get_or_insert(error);
                }
            }
        }
        if outcome.published_any && outcome.error.is_none() {
            self.metrics.published(started.elapsed());
        }
        outcome
    }
}

#[cfg(test)]
mod tests;
