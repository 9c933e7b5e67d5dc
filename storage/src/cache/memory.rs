//! The cache in this process, for the embedded default. The same rules as `schemas/lua/publish.lua`.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use schemas::{
    BudgetId, BudgetTotals, CombinedTotals, MergeFault, PartitionCount, PartitionId,
    PartitionTotals, Term,
};
use tokio::sync::broadcast;

use super::{Cache, CacheError, CacheUpdate};

/// How far a subscriber may fall behind.
const UPDATES_KEPT: usize = 1_024;

/// The cache in this process. Empty at every start, until owners publish.
pub struct MemoryCache {
    budgets: Mutex<HashMap<BudgetId, Copied>>,
    updates: broadcast::Sender<CacheUpdate>,
}

/// One budget's copy.
#[derive(Default)]
struct Copied {
    partitions: BTreeMap<PartitionId, PartitionTotals>,
    /// The sum of all partitions in one term: the newest that was whole.
    aggregate: Option<CombinedTotals>,
}

impl MemoryCache {
    /// An empty cache.
    pub fn new() -> Self {
        Self { budgets: Mutex::default(), updates: broadcast::Sender::new(UPDATES_KEPT) }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<BudgetId, Copied>> {
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
        let copied = budgets.entry(budget.clone()).or_default();
        let mut forward = false;
        for part in partitions {
            forward |= copied.take(part.clone());
        }
        if forward && copied.combine(term, count)? {
            // It is no error that nobody listens.
            let _ = self.updates.send(CacheUpdate::Moved(budget.clone()));
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

impl Copied {
    /// Takes a partition's totals if they are newer than what is there.
    fn take(&mut self, part: PartitionTotals) -> bool {
        let place = |part: &PartitionTotals| (part.term, part.totals.position);
        let known = self.partitions.get(&part.partition);
        let newer = known.is_none_or(|known| place(&part) > place(known));
        if newer {
            self.partitions.insert(part.partition, part);
        }
        newer
    }

    /// Adds the term's partitions up, if all of it is there. Whether the aggregate has moved.
    fn combine(&mut self, term: Term, count: PartitionCount) -> Result<bool, CacheError> {
        let known = || count.partitions().map(|partition| self.partitions.get(&partition));
        if known().flatten().any(|part| part.term < term) {
            // Until the last of them has come into the term, the sum of the one before would only grow old here.
            self.aggregate = None;
            return Ok(false);
        }
        let totals: Vec<Option<BudgetTotals>> = known()
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
