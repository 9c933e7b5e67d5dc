//! The cache in process memory, for the embedded default. Follows the same rules as `schemas/lua/publish.lua`.

use std::collections::{BTreeMap, HashMap};

use async_trait::async_trait;
use parking_lot::Mutex;
use schemas::{
    BudgetId, BudgetTotals, CombinedTotals, MergeFault, PartitionCount, PartitionId,
    PartitionTotals, Position, Term,
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
        let mut budgets = self.budgets.lock();
        let copy = budgets.entry(budget.clone()).or_default();
        let moves: Vec<Move> =
            partitions.iter().filter_map(|part| copy.replace_if_newer(part.clone())).collect();
        if !moves.is_empty() && copy.update_aggregate(term, count, &moves)? {
            // A send fails only when there are no subscribers.
            let _ = self.updates.send(CacheUpdate::Changed(budget.clone()));
        }
        Ok(())
    }

    async fn outdated_partitions(
        &self,
        budget: &BudgetId,
        term: Term,
        _: PartitionCount,
        positions: &[(PartitionId, Position)],
    ) -> Result<Vec<PartitionId>, CacheError> {
        let copies = self.budgets.lock();
        let copy = copies.get(budget);
        let outdated = |(partition, position): &(PartitionId, Position)| {
            let stored = copy.and_then(|copy| copy.partitions.get(partition));
            stored.is_none_or(|stored| version(stored) < (term, *position)).then_some(*partition)
        };
        Ok(positions.iter().filter_map(outdated).collect())
    }

    async fn read(&self, budgets: &[BudgetId]) -> Result<Vec<Option<CombinedTotals>>, CacheError> {
        let copies = self.budgets.lock();
        let aggregate = |budget: &BudgetId| copies.get(budget)?.aggregate.clone();
        Ok(budgets.iter().map(aggregate).collect())
    }

    fn subscribe(&self) -> broadcast::Receiver<CacheUpdate> {
        self.updates.subscribe()
    }
}

/// A partition that moved forward, and its former totals.
struct Move {
    partition: PartitionId,
    former: Option<PartitionTotals>,
}

/// What orders the totals of one partition.
fn version(part: &PartitionTotals) -> (Term, Position) {
    (part.term, part.totals.position)
}

impl BudgetCopy {
    /// Replaces a partition's totals if the new ones are newer. Returns `None` if they are not.
    fn replace_if_newer(&mut self, part: PartitionTotals) -> Option<Move> {
        let stored = self.partitions.get(&part.partition);
        let newer = stored.is_none_or(|stored| version(&part) > version(stored));
        newer.then(|| {
            let partition = part.partition;
            Move { partition, former: self.partitions.insert(partition, part) }
        })
    }

    /// Updates the sum after partitions moved. Returns whether the aggregate has changed.
    fn update_aggregate(
        &mut self,
        term: Term,
        count: PartitionCount,
        moves: &[Move],
    ) -> Result<bool, CacheError> {
        if let Some(sum) = self.moved_aggregate(term, moves) {
            self.aggregate = Some(sum);
            return Ok(true);
        }
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

    /// Replaces the moved partitions in the term's aggregate. `None` if it does not contain their former totals.
    fn moved_aggregate(&self, term: Term, moves: &[Move]) -> Option<CombinedTotals> {
        let sum = self.aggregate.as_ref().filter(|sum| sum.term == term)?.clone();
        moves.iter().try_fold(sum, |sum, Move { partition, former }| {
            let former = former.as_ref().filter(|former| former.term == term)?;
            let newer = self.partitions.get(partition)?;
            sum.replace(*partition, &former.totals, &newer.totals)
        })
    }
}
