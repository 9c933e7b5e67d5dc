//! The committed totals of the owned partitions, and which of them the cache lacks or may lack. Totals of other
//! generations than the active one are ignored. No I/O.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use schemas::{
    BudgetId, BudgetTotals, PartitionCount, PartitionId, PartitionTotals, Position, Term,
};
use storage::control::Catalog;
use storage::store::PartitionRef;

#[derive(Default)]
pub(super) struct PendingTotals {
    active: Option<ActiveTerm>,
    owned: BTreeMap<PartitionId, BTreeMap<BudgetId, Arc<BudgetTotals>>>,
    /// Committed since the last flush.
    changed: Pending,
    /// Committed earlier, or by another owner.
    unconfirmed: Pending,
}

/// The term whose totals are published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ActiveTerm {
    term: Term,
    partitions: PartitionCount,
}

/// Totals by budget. They may belong to partitions that were released meanwhile.
#[derive(Default)]
struct Pending(BTreeMap<BudgetId, BTreeMap<PartitionId, Arc<BudgetTotals>>>);

/// The pending totals of one budget in some partitions.
pub(super) struct PendingBudget {
    pub budget: BudgetId,
    pub term: Term,
    pub count: PartitionCount,
    partitions: BTreeMap<PartitionId, Arc<BudgetTotals>>,
}

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
        let totals = totals.into_iter().map(|(budget, totals)| (budget, Arc::new(totals)));
        match self.owned.entry(partition) {
            Entry::Occupied(mut owned) => {
                for (budget, totals) in totals {
                    // Published before the claim already.
                    let known = owned.get().get(&budget);
                    if known.is_some_and(|known| known.position == totals.position) {
                        continue;
                    }
                    self.changed.insert(&budget, partition, &totals);
                    owned.get_mut().insert(budget, totals);
                }
            }
            Entry::Vacant(owned) => {
                let totals = owned.insert(totals.collect());
                self.unconfirmed.insert_all(partition, totals, catalog);
            }
        }
    }

    /// Stops confirming a partition. What is pending of it stays pending.
    pub fn release(&mut self, partition: PartitionRef) {
        if self.is_active(partition) {
            self.owned.remove(&partition.partition);
        }
    }

    /// Makes the totals of every owned partition unconfirmed.
    pub fn confirm_all(&mut self, catalog: &Catalog) {
        for (partition, totals) in &self.owned {
            self.unconfirmed.insert_all(*partition, totals, catalog);
        }
    }

    pub fn has_unconfirmed(&self) -> bool {
        !self.unconfirmed.0.is_empty()
    }

    /// Takes the changed totals, by budget.
    pub fn take_changed(&mut self) -> Vec<PendingBudget> {
        let changed = std::mem::take(&mut self.changed);
        self.by_budget(changed)
    }

    /// Takes the unconfirmed totals, by budget.
    pub fn take_unconfirmed(&mut self) -> Vec<PendingBudget> {
        let unconfirmed = std::mem::take(&mut self.unconfirmed);
        self.by_budget(unconfirmed)
    }

    fn by_budget(&self, pending: Pending) -> Vec<PendingBudget> {
        let Some(ActiveTerm { term, partitions: count }) = self.active else {
            return Vec::new();
        };
        let of = |(budget, partitions)| PendingBudget { budget, term, count, partitions };
        pending.0.into_iter().map(of).collect()
    }

    /// Makes changed totals pending again that the cache rejected, unless newer ones are pending.
    pub fn restore_changed(&mut self, totals: PendingBudget) {
        if self.active.is_some_and(|active| active.term == totals.term) {
            self.changed.restore(totals);
        }
    }

    /// Makes unconfirmed totals pending again that the cache rejected, unless newer ones are pending.
    pub fn restore_unconfirmed(&mut self, totals: PendingBudget) {
        if self.active.is_some_and(|active| active.term == totals.term) {
            self.unconfirmed.restore(totals);
        }
    }
}

impl Pending {
    fn insert(&mut self, budget: &BudgetId, partition: PartitionId, totals: &Arc<BudgetTotals>) {
        self.0.entry(budget.clone()).or_default().insert(partition, Arc::clone(totals));
    }

    /// Inserts a partition's totals of every budget. Defined budgets without any record get empty totals.
    fn insert_all(
        &mut self,
        partition: PartitionId,
        totals: &BTreeMap<BudgetId, Arc<BudgetTotals>>,
        catalog: &Catalog,
    ) {
        let empty = Arc::default();
        for budget in catalog.iter().filter(|budget| !totals.contains_key(&budget.id)) {
            self.insert(&budget.id, partition, &empty);
        }
        for (budget, totals) in totals {
            self.insert(budget, partition, totals);
        }
    }

    fn restore(&mut self, PendingBudget { budget, partitions, .. }: PendingBudget) {
        let pending = self.0.entry(budget).or_default();
        for (partition, totals) in partitions {
            pending.entry(partition).or_insert(totals);
        }
    }
}

impl PendingBudget {
    /// The position of each partition.
    pub fn positions(&self) -> Vec<(PartitionId, Position)> {
        self.partitions.iter().map(|(partition, totals)| (*partition, totals.position)).collect()
    }

    /// Copies what readers are shown of the partitions that are wanted.
    pub fn to_partition_totals(
        &self,
        wanted: impl Fn(PartitionId) -> bool,
    ) -> Vec<PartitionTotals> {
        let term = self.term;
        let wanted = self.partitions.iter().filter(|(partition, _)| wanted(**partition));
        wanted
            .map(|(&partition, totals)| {
                PartitionTotals::shown(term, partition, BudgetTotals::clone(totals))
            })
            .collect()
    }
}
