//! Telling the cache what is committed: the newest totals of each budget and partition, many partitions in one call.
//!
//! Nothing queues up: what is newer takes the place of what has not been told yet. Everything that is owned is told
//! again on a timer, so a cache that lost everything heals by itself. Budgets that nobody has said anything about are
//! told too, as empty: an aggregate that lacks a partition is no answer.

mod totals;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use schemas::{BudgetId, BudgetTotals, PartitionCount, Term};
use storage::cache::{Cache, CacheError};
use storage::definitions::Definitions;
use storage::store::PartitionRef;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::metrics::ProcessorMetrics;
use totals::Totals;

/// The least time between two rounds: what is committed meanwhile goes in one call.
const ROUND_INTERVAL: Duration = Duration::from_millis(5);
/// Before what the cache did not take is told again; and between two rounds while it takes nothing at all.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// Keeps the committed totals of the partitions that this process owns, and tells them.
pub struct Publisher {
    cache: Arc<dyn Cache>,
    definitions: Arc<dyn Definitions>,
    metrics: ProcessorMetrics,
    totals: Mutex<Totals>,
    news: Notify,
}

/// What a round came to.
struct Round {
    /// Whether the cache took anything.
    told_any: bool,
    /// The first thing that it did not take.
    fault: Option<CacheError>,
}

impl Publisher {
    /// A publisher that owns nothing yet, and tells nothing before it is told in which term it answers.
    pub fn new(
        cache: Arc<dyn Cache>,
        definitions: Arc<dyn Definitions>,
        metrics: ProcessorMetrics,
    ) -> Self {
        let (totals, news) = (Mutex::default(), Notify::new());
        Self { cache, definitions, metrics, totals, news }
    }

    /// From now on the totals of this term's generation are told, which has so many partitions, and of no other.
    pub fn answer_in(&self, term: Term, partitions: PartitionCount) {
        self.lock().begin(term, partitions);
    }

    /// Takes over totals that have been committed. Costs no I/O.
    pub fn publish(&self, partition: PartitionRef, totals: Vec<(BudgetId, BudgetTotals)>) {
        self.lock().take_over(partition, totals, &self.definitions.catalog());
        self.news.notify_one();
    }

    /// A partition has been given up: it is not told again. What has not been told yet still is: it is committed, and
    /// its next owner tells only what comes after.
    pub fn forget(&self, partition: PartitionRef) {
        self.lock().give_up(partition);
    }

    /// Tells until told to stop, and once more then.
    pub async fn run(&self, republish_interval: Duration, stop: CancellationToken) {
        let mut definitions = self.definitions.changes();
        let mut republish = tokio::time::interval(republish_interval);
        republish.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut answering, mut retry_at) = (true, Instant::now());
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                _ = republish.tick() => self.tell_everything_again(),
                Ok(()) = definitions.changed() => self.tell_everything_again(),
                () = self.news.notified() => {}
                () = sleep_until(retry_at), if !answering => {}
            }
            let Round { told_any, fault } = self.tell().await;
            match &fault {
                None if !answering => tracing::info!("the cache takes all totals again"),
                Some(error) if answering => {
                    tracing::warn!(%error, "the cache does not take all totals");
                }
                _ => {}
            }
            answering = fault.is_none();
            if !answering {
                self.metrics.publish_failed();
                retry_at = Instant::now() + RETRY_PAUSE;
            }
            let pause = if answering || told_any { ROUND_INTERVAL } else { RETRY_PAUSE };
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = sleep(pause) => {}
            }
        }
        if let Some(error) = self.tell().await.fault {
            tracing::warn!(%error, "the last totals could not be told; the next owner will");
        }
    }

    /// Tells what is untold. A budget that the cache does not take keeps no other from being told.
    async fn tell(&self) -> Round {
        let started = Instant::now();
        let untold = self.lock().take_untold();
        let mut round = Round { told_any: false, fault: None };
        for (budget, count, partitions) in untold {
            match self.cache.publish(&budget, count, &partitions).await {
                Ok(()) => round.told_any = true,
                Err(fault) => {
                    self.lock().put_back(budget, partitions);
                    round.fault.get_or_insert(fault);
                }
            }
        }
        if round.told_any && round.fault.is_none() {
            self.metrics.published(started.elapsed());
        }
        round
    }

    fn tell_everything_again(&self) {
        self.lock().tell_again(&self.definitions.catalog());
    }

    fn lock(&self) -> MutexGuard<'_, Totals> {
        self.totals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
