//! Publishing committed totals to the cache: the newest totals of each budget and partition, many partitions in one call.
//!
//! Nothing queues up: newer totals replace pending ones. The totals of every owned partition are republished on a timer,
//! so a cache that lost its data heals by itself. Budgets without any record are published too, as empty totals: readers
//! take an aggregate that lacks a partition for a miss.

mod pending_totals;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

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
/// Delay before rejected totals are flushed again, and between flushes while the cache accepts nothing.
const RETRY_DELAY: Duration = Duration::from_millis(200);

/// Publishes the committed totals of the partitions that this process owns.
pub struct Publisher {
    cache: Arc<dyn Cache>,
    definitions: Arc<dyn BudgetDefinitions>,
    metrics: EngineMetrics,
    totals: Mutex<PendingTotals>,
    totals_added: Notify,
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
        let (totals, totals_added) = (Mutex::default(), Notify::new());
        Self { cache, definitions, metrics, totals, totals_added }
    }

    /// Publishes the totals of this term's generation from now on, and of no other.
    pub fn set_active_term(&self, term: Term, partitions: PartitionCount) {
        self.lock().set_active_term(term, partitions);
    }

    /// Adds committed totals, to be published by the next flush. No I/O.
    pub fn publish(&self, partition: PartitionRef, totals: Vec<(BudgetId, BudgetTotals)>) {
        self.lock().add(partition, totals, &self.definitions.catalog());
        self.totals_added.notify_one();
    }

    /// Stops republishing a released partition.
    ///
    /// What is pending of it is still published: it is committed, and the next owner publishes only later changes.
    pub fn forget(&self, partition: PartitionRef) {
        self.lock().release(partition);
    }

    /// Flushes pending totals until `stop` is cancelled, and a last time then.
    pub async fn run(&self, republish_interval: Duration, stop: CancellationToken) {
        let mut definitions = self.definitions.changes();
        let mut republish = tokio::time::interval(republish_interval);
        republish.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut healthy, mut retry_at) = (true, Instant::now());
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                _ = republish.tick() => self.republish_all(),
                Ok(()) = definitions.changed() => self.republish_all(),
                () = self.totals_added.notified() => {}
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

    /// Publishes pending totals. A budget that the cache rejects does not block the others.
    async fn flush(&self) -> FlushOutcome {
        let started = Instant::now();
        let pending = self.lock().take_pending();
        let mut outcome = FlushOutcome { published_any: false, error: None };
        for (budget, count, partitions) in pending {
            match self.cache.publish(&budget, count, &partitions).await {
                Ok(()) => outcome.published_any = true,
                Err(error) => {
                    self.lock().restore_pending(budget, partitions);
                    outcome.error.get_or_insert(error);
                }
            }
        }
        if outcome.published_any && outcome.error.is_none() {
            self.metrics.published(started.elapsed());
        }
        outcome
    }

    fn republish_all(&self) {
        self.lock().republish_all(&self.definitions.catalog());
    }

    fn lock(&self) -> MutexGuard<'_, PendingTotals> {
        self.totals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
