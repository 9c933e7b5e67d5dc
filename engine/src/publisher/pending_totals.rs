//! The committed totals of the owned partitions, and which of them the cache lacks. Totals of other generations than
//! the active one are ignored. No I/O.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use schemas::{BudgetId, BudgetTotals, PartitionCount, PartitionId, PartitionTotals, Term};
use storage::control::Catalog;
use storage::store::PartitionRef;

#[derive(Default)]
pub(super) struct PendingTotals {
    active: Option<ActiveTerm>,
    owned: BTreeMap<PartitionId, BTreeMap<BudgetId, BudgetTotals>>,
    pending: Pending,
}

/// The term whose totals are published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ActiveTerm {
    term: Term,
    partitions: PartitionCount,
}

/// Totals to be published, one call for each budget. They may belong to partitions that were released meanwhile.
#[derive(Default)]
struct Pending(BTreeMap<BudgetId, BTreeMap<PartitionId, BudgetTotals>>);

impl PendingTotals {
    /// Switches to a term. Totals of the previous term are dropped.
    pub fn set_active_term(&mut self, term: Term, partitions: PartitionCount) {
        let active = Some(ActiveTerm { term, partitions });
        if active != self.active {
            *self = Self { active, ..Self::default() };
        }
    }

    fn is_active(&self, partition: PartitionRef) -> bool {
        self.active.is_some_and(|active| active.term.generation == partition.generation)
    }

    /// Adds committed totals of a partition: its changed budgets, or every budget if the partition is new here.
    pub fn add(
        &mut self,
        partition: PartitionRef,
        totals: Vec<(BudgetId, BudgetTotals)>,
        catalog: &Catalog,
    ) {
        if !self.is_active(partition) {
            return;
        }
        let partition = partition.partition;
        match self.owned.entry(partition) {
            Entry::Occupied(owned) => {
                for (budget, totals) in &totals {
                    self.pending.insert(budget, partition, totals.clone());
                }
                owned.into_mut().extend(totals);
            }
            Entry::Vacant(owned) => {
                let totals = owned.insert(totals.into_iter().collect());
                self.pending.insert_all(partition, totals, catalog);
            }
        }
    }

    /// Stops republishing a partition. What is pending of it stays pending.
    pub fn release(&mut self, partition: PartitionRef) {
        if self.is_active(partition) {
            self.owned.remove(&partition.partition);
        }
    }

    /// Makes the totals of every owned partition pending.
    pub fn republish_all(&mut self, catalog: &Catalog) {
        for (partition, totals) in &self.owned {
            self.pending.insert_all(*partition, totals, catalog);
        }
    }

    /// Takes the pending totals, by budget: the log's partition count, and the totals of some partitions.
    pub fn take_pending(&mut self) -> Vec<(BudgetId, PartitionCount, Vec<PartitionTotals>)> {
        let Some(ActiveTerm { term, partitions: count }) = self.active else {
            return Vec::new();
        };
        let pending = std::mem::take(&mut self.pending.0).into_iter();
        let call = |(budget, partitions): (_, BTreeMap<_, _>)| {
            let partitions = partitions.into_iter();
            let of = |(partition, totals)| PartitionTotals { term, partition, totals };
            (budget, count, partitions.map(of).collect())
        };
        pending.map(call).collect()
    }

    /// Makes totals pending again that the cache rejected, unless newer ones are pending.
    pub fn restore_pending(&mut self, budget: BudgetId, partitions: Vec<PartitionTotals>) {
        for PartitionTotals { term, partition, totals } in partitions {
            if self.active.is_some_and(|active| active.term == term) {
                let pending = self.pending.0.entry(budget.clone()).or_default();
                pending.entry(partition).or_insert(totals);
            }
        }
    }
}

impl Pending {
    fn insert(&mut self, budget: &BudgetId, partition: PartitionId, totals: BudgetTotals) {
        self.0.entry(budget.clone()).or_default().insert(partition, totals);
    }

    /// Inserts a partition's totals of every budget. Defined budgets without any record get empty totals.
    fn insert_all(
        &mut self,
        partition: PartitionId,
        totals: &BTreeMap<BudgetId, BudgetTotals>,
        catalog: &Catalog,
    ) {
        let empty = catalog.iter().filter(|budget| !totals.contains_key(&budget.id));
        for budget in empty {
            self.insert(&budget.id, partition, BudgetTotals::default());
        }
        for (budget, totals) in totals {
            self.insert(budget, partition, totals.clone());
        }
    }
}
