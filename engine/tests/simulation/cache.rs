//! The cache server. Checks everything that is published to it and everything that readers would see. Also has the
//! budget definitions.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use schemas::{
    Budget, BudgetId, CombinedTotals, PartitionCount, PartitionId, PartitionTotals, Position, Term,
};
use storage::cache::memory::MemoryCache;
use storage::cache::{Cache, CacheError, CacheUpdate};
use storage::control::{BudgetDefinitions, Catalog, Change, ControlTopicError, Deletion, Erasure};
use storage::store::PartitionRef;
use tokio::sync::{broadcast, watch};

use crate::log::Log;
use crate::network::{Link, Service};
use crate::oracle::{CheckResult, require};
use crate::store::StoreServer;
use crate::world::World;

pub struct CacheServer {
    world: Arc<World>,
    store: Arc<StoreServer>,
    cache: Mutex<Arc<MemoryCache>>,
    /// The last totals that readers saw of each budget since the cache lost its data.
    visible: Mutex<BTreeMap<BudgetId, CombinedTotals>>,
}

impl CacheServer {
    pub fn new(world: Arc<World>, store: Arc<StoreServer>) -> Self {
        Self { world, store, cache: Mutex::default(), visible: Mutex::default() }
    }

    /// Drops all data.
    pub fn flush(&self) {
        *self.cache.lock() = Arc::default();
        self.visible.lock().clear();
    }

    fn cache(&self) -> Arc<MemoryCache> {
        Arc::clone(&self.cache.lock())
    }

    /// Reads the totals of a budget as a reader does.
    pub async fn read_budget(&self, budget: &BudgetId) -> Option<CombinedTotals> {
        self.cache().read(std::slice::from_ref(budget)).await.unwrap().pop().unwrap()
    }

    async fn publish(
        self: Arc<Self>,
        budget: BudgetId,
        count: PartitionCount,
        partitions: Vec<PartitionTotals>,
    ) -> Result<(), CacheError> {
        for totals in &partitions {
            self.world.check(self.check_published(&budget, totals));
        }
        let outcome = self.cache().publish(&budget, count, &partitions).await;
        if let Some(now) = self.read_budget(&budget).await {
            self.world.check(self.check_visible(&budget, &now));
            self.visible.lock().insert(budget, now);
        }
        outcome
    }

    fn check_published(&self, budget: &BudgetId, totals: &PartitionTotals) -> CheckResult {
        let (partition, position) = (totals.partition, totals.totals.position);
        self.world.oracle.check_totals(partition, budget, &totals.totals)?;
        let generation = totals.term.generation;
        let acknowledged = self.store.acknowledged(PartitionRef { generation, partition });
        require(position <= acknowledged, || {
            format!(
                "position {position} of partition {partition} is published, but only {acknowledged} is acknowledged"
            )
        })
    }

    fn check_visible(&self, budget: &BudgetId, now: &CombinedTotals) -> CheckResult {
        self.world.oracle.check_combined(budget, now)?;
        let visible = self.visible.lock();
        let before = visible.get(budget);
        // An `api` shows a later term once it includes everything that was shown before.
        let follows = |before: &CombinedTotals| now.term > before.term || now.includes(before);
        require(before.is_none_or(follows), || format!("readers saw {before:?}, then {now:?}"))
    }
}

/// One process's cache client.
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

    async fn outdated_partitions(
        &self,
        budget: &BudgetId,
        term: Term,
        count: PartitionCount,
        positions: &[(PartitionId, Position)],
    ) -> Result<Vec<PartitionId>, CacheError> {
        let (server, budget, positions) =
            (Arc::clone(&self.server), budget.clone(), positions.to_vec());
        let compare = async move {
            server.cache().outdated_partitions(&budget, term, count, &positions).await
        };
        self.link.call(Service::Cache, compare).await.map_err(CacheError)?
    }

    async fn read(&self, budgets: &[BudgetId]) -> Result<Vec<Option<CombinedTotals>>, CacheError> {
        self.server.cache().read(budgets).await
    }

    fn subscribe(&self) -> broadcast::Receiver<CacheUpdate> {
        self.server.cache().subscribe()
    }
}

/// Definitions that never change: every budget of the log, and one without records.
pub struct FixedDefinitions {
    catalog: Arc<Catalog>,
    changes: watch::Sender<()>,
}

impl FixedDefinitions {
    pub fn of(log: &Log) -> Self {
        let ids = log.budgets.iter().map(|(id, _)| id.clone());
        let catalog =
            ids.chain([budget_without_records()]).fold(Catalog::default(), |catalog, id| {
                let budget = serde_json::json!({ "id": id, "name": "A budget", "categories": [] });
                let budget: Budget = serde_json::from_value(budget).unwrap();
                catalog.with(Arc::new(budget))
            });
        Self { catalog: Arc::new(catalog), changes: watch::Sender::new(()) }
    }
}

/// A budget that no record mentions.
pub fn budget_without_records() -> BudgetId {
    BudgetId::parse("no-records").unwrap()
}

#[async_trait]
impl BudgetDefinitions for FixedDefinitions {
    fn catalog(&self) -> Arc<Catalog> {
        Arc::clone(&self.catalog)
    }

    fn is_loaded(&self) -> bool {
        true
    }

    async fn confirmed(&self) -> Result<Arc<Catalog>, ControlTopicError> {
        Ok(self.catalog())
    }

    fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    async fn change(
        &self,
        _budget: &BudgetId,
        _decide: &Change<'_>,
    ) -> Result<Arc<Budget>, ControlTopicError> {
        Err(ControlTopicError::Unavailable("definitions never change in the simulation".into()))
    }

    async fn delete(&self, _: &BudgetId, _: &Deletion<'_>) -> Result<(), ControlTopicError> {
        Err(ControlTopicError::Unavailable("definitions never change in the simulation".into()))
    }

    async fn erase_former_definitions(&self, _: &BudgetId) -> Result<Erasure, ControlTopicError> {
        Err(ControlTopicError::Unavailable("definitions never change in the simulation".into()))
    }
}
