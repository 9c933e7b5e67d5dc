//! The readers' cache, which checks everything it is told and everything it would show; and the definitions.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use schemas::{Budget, BudgetId, CombinedTotals, PartitionCount, PartitionTotals};
use storage::cache::memory::MemoryCache;
use storage::cache::{Cache, CacheError, CacheUpdate};
use storage::definitions::{Catalog, Change, DefinitionError, Definitions};
use tokio::sync::{broadcast, watch};

use crate::log::Log;
use crate::network::{Link, Service};
use crate::oracle::{Checked, require};
use crate::store::StoreServer;
use crate::world::{World, lock};

pub struct CacheServer {
    world: Arc<World>,
    store: Arc<StoreServer>,
    cache: Mutex<Arc<MemoryCache>>,
    /// What was last shown of each budget since the last flush.
    shown: Mutex<BTreeMap<BudgetId, CombinedTotals>>,
}

impl CacheServer {
    pub fn new(world: Arc<World>, store: Arc<StoreServer>) -> Self {
        Self { world, store, cache: Mutex::default(), shown: Mutex::default() }
    }

    /// Loses everything.
    pub fn flush(&self) {
        *lock(&self.cache) = Arc::default();
        lock(&self.shown).clear();
    }

    fn cache(&self) -> Arc<MemoryCache> {
        Arc::clone(&lock(&self.cache))
    }

    /// What a reader sees of a budget.
    pub async fn show(&self, budget: &BudgetId) -> Option<CombinedTotals> {
        self.cache().read(std::slice::from_ref(budget)).await.unwrap().pop().unwrap()
    }

    async fn publish(
        self: Arc<Self>,
        budget: BudgetId,
        count: PartitionCount,
        partitions: Vec<PartitionTotals>,
    ) -> Result<(), CacheError> {
        for part in &partitions {
            self.world.check(self.check_told(&budget, part));
        }
        let outcome = self.cache().publish(&budget, count, &partitions).await;
        if let Some(now) = self.show(&budget).await {
            self.world.check(self.check_shown(&budget, &now));
            lock(&self.shown).insert(budget, now);
        }
        outcome
    }

    fn check_told(&self, budget: &BudgetId, part: &PartitionTotals) -> Checked {
        let (partition, position) = (part.partition, part.totals.position);
        self.world.oracle.check_totals(partition, budget, &part.totals)?;
        let acknowledged = self.store.acknowledged(partition);
        require(position <= acknowledged, || {
            format!("{position} is told of partition {partition} while it is at {acknowledged}")
        })
    }

    fn check_shown(&self, budget: &BudgetId, now: &CombinedTotals) -> Checked {
        self.world.oracle.check_combined(budget, now)?;
        let shown = lock(&self.shown);
        let before = shown.get(budget);
        require(before.is_none_or(|before| now.includes(before)), || {
            format!("readers saw {before:?}, then {now:?}")
        })
    }
}

/// One process's way to the cache.
pub struct CacheClient {
    pub server: Arc<CacheServer>,
    pub link: Link,
}

#[async_trait]
impl Cache for CacheClient {
    async fn publish(
        &self,
        budget: &BudgetId,
        count: PartitionCount,
        partitions: &[PartitionTotals],
    ) -> Result<(), CacheError> {
        let (server, budget) = (Arc::clone(&self.server), budget.clone());
        let publish = server.publish(budget, count, partitions.to_vec());
        self.link.call(Service::Cache, publish).await.map_err(CacheError)?
    }

    async fn read(&self, budgets: &[BudgetId]) -> Result<Vec<Option<CombinedTotals>>, CacheError> {
        self.server.cache().read(budgets).await
    }

    fn subscribe(&self) -> broadcast::Receiver<CacheUpdate> {
        self.server.cache().subscribe()
    }
}

/// Definitions that never change: every budget of the log, and one that nobody says anything about.
pub struct FixedDefinitions {
    catalog: Arc<Catalog>,
    changes: watch::Sender<()>,
}

impl FixedDefinitions {
    pub fn of(log: &Log) -> Self {
        let ids = log.budgets.iter().map(|(id, _)| id.clone());
        let catalog = ids.chain([silent_budget()]).fold(Catalog::default(), |catalog, id| {
            let budget = serde_json::json!({ "id": id, "name": "A budget", "categories": [] });
            let budget: Budget = serde_json::from_value(budget).unwrap();
            catalog.with(Arc::new(budget))
        });
        Self { catalog: Arc::new(catalog), changes: watch::Sender::new(()) }
    }
}

/// A budget that nobody says anything about.
pub fn silent_budget() -> BudgetId {
    BudgetId::parse("silent").unwrap()
}

#[async_trait]
impl Definitions for FixedDefinitions {
    fn catalog(&self) -> Arc<Catalog> {
        Arc::clone(&self.catalog)
    }

    fn is_loaded(&self) -> bool {
        true
    }

    fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    async fn change(
        &self,
        _budget: &BudgetId,
        _decide: &Change<'_>,
    ) -> Result<Arc<Budget>, DefinitionError> {
        Err(DefinitionError::Unavailable("they never change here".into()))
    }
}
