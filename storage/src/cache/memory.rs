//! The cache in process memory, for the embedded default. Follows the same rules as `schemas/lua/publish.lua`.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use schemas::{
    BudgetId, BudgetTotals, CombinedTotals, MergeFault, PartitionCount, PartitionId,
    PartitionTotals, Term,
};
use tokio::sync::broadcast;

use super::{Cache, CacheError, CacheUpdate, MAX_PENDING_UPDATES};

/// The cache in process memory. Empty at every start, until owners publish.
pub struct MemoryCache {
    budgets: Mutex<HashMap<BudgetId, BudgetCopy>>,
    updates: broadcast::Sender<CacheUpdate>,
}

/// The copy of one budget's totals.
#[derive(Default)]
struct BudgetCopy {
    partitions: BTreeMap<PartitionId, PartitionTotals>,
    /// The sum of all partitions in the newest term that is complete.
    aggregate: Option<CombinedTotals>,
}

impl MemoryCache {
    /// Creates an empty cache.
    pub fn new() -> Self {
        Self { budgets: Mutex::default(), updates: broadcast::Sender::new(MAX_PENDING_UPDATES) }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<BudgetId, BudgetCopy>> {
        self.budgets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for MemoryCache {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Cache for MemoryCache {
    async fn publish(
        &self,
        budget: &BudgetId,
        count: PartitionCount,
        partitions: &[PartitionTotals],
    ) -> Result<(), CacheError> {
        let Some(term) = partitions.first().map(|part| part.term) else {
            return Ok(());
        };
        let mut budgets = self.lock();
        let copy = budgets.entry(budget.clone()).or_default();
        let mut changed = false;
        for part in partitions {
            changed |= copy.replace_if_newer(part.clone());
        }
        if changed && copy.update_aggregate(term, count)? {
            // A send fails only when there are no subscribers.
            let _ = self.updates.send(CacheUpdate::Changed(budget.clone()));
        }
        Ok(())
    }

    async fn read(&self, budgets: &[BudgetId]) -> Result<Vec<Option<CombinedTotals>>, CacheError> {
        let copies = self.lock();
        let aggregate = |budget: &BudgetId| copies.get(budget)?.aggregate.clone();
        Ok(budgets.iter().map(aggregate).collect())
    }

    fn subscribe(&self) -> broadcast::Receiver<CacheUpdate> {
        self.updates.subscribe()
    }
}

impl BudgetCopy {
    /// Replaces a partition's totals if the new ones are newer. Returns whether they were.
    fn replace_if_newer(&mut self, part: PartitionTotals) -> bool {
        let version = |part: &PartitionTotals| (part.term, part.totals.position);
        let stored = self.partitions.get(&part.partition);
        let newer = stored.is_none_or(|stored| version(&part) > version(stored));
        if newer {
            self.partitions.insert(part.partition, part);
        }
        newer
    }

    /// Sums the term's partitions up once all of them are present. Returns whether the aggregate has changed.
    fn update_aggregate(&mut self, term: Term, count: PartitionCount) -> Result<bool, CacheError> {
        let stored = || count.partitions().map(|partition| self.partitions.get(&partition));
        if stored().flatten().any(|part| part.term < term) {
            // Until every partition is in the new term, the previous term's aggregate would only get older.
            self.aggregate = None;
            return Ok(false);
        }
        let totals: Vec<Option<BudgetTotals>> = stored()
            .map(|part| Some(part.filter(|part| part.term == term)?.totals.clone()))
            .collect();
        match CombinedTotals::merge(term, count, &totals) {
            Ok(aggregate) => {
                self.aggregate = Some(aggregate);
                Ok(true)
            }
            Err(MergeFault::Missing(_)) => Ok(false),
            Err(fault @ MergeFault::Categories(_)) => Err(CacheError(fault.to_string())),
        }
    }
}
