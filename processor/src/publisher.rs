//! Telling the cache what is committed: the newest totals of each budget and partition, many partitions in one call.
//!
//! Nothing queues up: what is newer takes the place of what has not been told yet. Everything is told again on a timer,
//! so a cache that lost everything heals by itself. Budgets that nobody has said anything about are told too, as empty:
//! an aggregate that lacks a partition is no answer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use schemas::{BudgetId, BudgetTotals, Generation, PartitionCount, PartitionTotals};
use storage::cache::{Cache, CacheError};
use storage::definitions::Definitions;
use storage::store::PartitionRef;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::metrics::ProcessorMetrics;

/// The least time between two rounds: what is committed meanwhile goes in one call.
const ROUND_INTERVAL: Duration = Duration::from_millis(5);
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// Keeps the committed totals of the partitions that this process owns.
pub struct Publisher {
    cache: Arc<dyn Cache>,
    definitions: Arc<dyn Definitions>,
    partitions: PartitionCount,
    metrics: ProcessorMetrics,
    owned: Mutex<Owned>,
    news: Notify,
}

#[derive(Default)]
struct Owned {
    totals: BTreeMap<PartitionRef, BTreeMap<BudgetId, BudgetTotals>>,
    untold: BTreeSet<(BudgetId, PartitionRef)>,
}

/// What one call tells.
struct Telling {
    budget: BudgetId,
    generation: Generation,
    partitions: Vec<PartitionTotals>,
}

impl Publisher {
    /// A publisher that owns nothing yet.
    pub fn new(
        cache: Arc<dyn Cache>,
        definitions: Arc<dyn Definitions>,
        partitions: PartitionCount,
        metrics: ProcessorMetrics,
    ) -> Self {
        Self {
            cache,
            definitions,
            partitions,
            metrics,
            owned: Mutex::default(),
            news: Notify::new(),
        }
    }

    /// Takes over totals that have been committed. Costs no I/O.
    pub fn publish(&self, partition: PartitionRef, totals: Vec<(BudgetId, BudgetTotals)>) {
        let mut owned = self.lock();
        let new = !owned.totals.contains_key(&partition);
        owned.totals.entry(partition).or_default();
        if new {
            self.mark_all(&mut owned);
        }
        for (budget, totals) in totals {
            owned.untold.insert((budget.clone(), partition));
            owned.totals.entry(partition).or_default().insert(budget, totals);
        }
        drop(owned);
        self.news.notify_one();
    }

    /// Forgets a partition that has been given up.
    pub fn forget(&self, partition: PartitionRef) {
        let mut owned = self.lock();
        owned.totals.remove(&partition);
        owned.untold.retain(|(_, untold)| *untold != partition);
    }

    /// Tells until told to stop, and once more then.
    pub async fn run(&self, republish_interval: Duration, stop: CancellationToken) {
        let mut definitions = self.definitions.changes();
        let mut republish = tokio::time::interval(republish_interval);
        republish.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut answering = true;
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                _ = republish.tick() => self.mark_all(&mut self.lock()),
                Ok(()) = definitions.changed() => self.mark_all(&mut self.lock()),
                () = self.news.notified() => {}
            }
            let outcome = self.tell().await;
            match &outcome {
                Ok(()) if !answering => tracing::info!("the cache takes totals again"),
                Err(error) if answering => tracing::warn!(%error, "the cache does not take totals"),
                _ => {}
            }
            answering = outcome.is_ok();
            if !answering {
                self.metrics.publish_failed();
                self.news.notify_one();
            }
            let pause = if answering { ROUND_INTERVAL } else { RETRY_PAUSE };
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = tokio::time::sleep(pause) => {}
            }
        }
        if let Err(error) = self.tell().await {
            tracing::warn!(%error, "the last totals could not be told; the next owner will");
        }
    }

    async fn tell(&self) -> Result<(), CacheError> {
        let started = Instant::now();
        let tellings = self.take_untold();
        if tellings.is_empty() {
            return Ok(());
        }
        for (index, telling) in tellings.iter().enumerate() {
            let told = self
                .cache
                .publish(&telling.budget, telling.generation, self.partitions, &telling.partitions)
                .await;
            if let Err(error) = told {
                self.put_back(&tellings[index..]);
                return Err(error);
            }
        }
        self.metrics.published(started.elapsed());
        Ok(())
    }

    fn take_untold(&self) -> Vec<Telling> {
        let mut owned = self.lock();
        let untold = std::mem::take(&mut owned.untold);
        let mut tellings: BTreeMap<(BudgetId, Generation), Vec<PartitionTotals>> = BTreeMap::new();
        for (budget, partition) in untold {
            let Some(totals) = owned.totals.get(&partition) else { continue };
            let totals = totals.get(&budget).cloned().unwrap_or_default();
            tellings.entry((budget, partition.generation)).or_default().push(PartitionTotals {
                generation: partition.generation,
                partition: partition.partition,
                totals,
            });
        }
        tellings
            .into_iter()
            .map(|((budget, generation), partitions)| Telling { budget, generation, partitions })
            .collect()
    }

    fn put_back(&self, tellings: &[Telling]) {
        let mut owned = self.lock();
        for telling in tellings {
            for part in &telling.partitions {
                let partition =
                    PartitionRef { generation: part.generation, partition: part.partition };
                owned.untold.insert((telling.budget.clone(), partition));
            }
        }
    }

    fn mark_all(&self, owned: &mut Owned) {
        let catalog = self.definitions.catalog();
        for (partition, totals) in &owned.totals {
            let defined = catalog.iter().map(|budget| &budget.id);
            for budget in totals.keys().chain(defined) {
                owned.untold.insert((budget.clone(), *partition));
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Owned> {
        self.owned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
