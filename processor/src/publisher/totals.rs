//! The totals that a publisher has: those of the partitions that are owned, and those that the cache has not been told.
//! All are of the generation that answers; those of others are passed over. No I/O.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use schemas::{BudgetId, BudgetTotals, PartitionCount, PartitionId, PartitionTotals, Term};
use storage::definitions::Catalog;
use storage::store::PartitionRef;

#[derive(Default)]
pub(super) struct Totals {
    answering: Option<Answering>,
    owned: BTreeMap<PartitionId, BTreeMap<BudgetId, BudgetTotals>>,
    untold: Untold,
}

/// Of what the totals are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Answering {
    term: Term,
    partitions: PartitionCount,
}

/// What is told of each budget in one call; it may be of partitions that have been given up meanwhile.
#[derive(Default)]
struct Untold(BTreeMap<BudgetId, BTreeMap<PartitionId, BudgetTotals>>);

impl Totals {
    /// Begins a term. What is known of the one before is no longer told.
    pub fn begin(&mut self, term: Term, partitions: PartitionCount) {
        let answering = Some(Answering { term, partitions });
        if answering != self.answering {
            *self = Self { answering, ..Self::default() };
        }
    }

    fn is_of_this_term(&self, partition: PartitionRef) -> bool {
        self.answering.is_some_and(|it| it.term.generation == partition.generation)
    }

    /// Takes over what has been committed of a partition; everything, if it is new here.
    pub fn take_over(
        &mut self,
        partition: PartitionRef,
        totals: Vec<(BudgetId, BudgetTotals)>,
        catalog: &Catalog,
    ) {
        if !self.is_of_this_term(partition) {
            return;
        }
        let partition = partition.partition;
        match self.owned.entry(partition) {
            Entry::Occupied(known) => {
                for (budget, totals) in &totals {
                    self.untold.put(budget, partition, totals.clone());
                }
                known.into_mut().extend(totals);
            }
            Entry::Vacant(new) => {
                let totals = new.insert(totals.into_iter().collect());
                self.untold.put_all(partition, totals, catalog);
            }
        }
    }

    /// Ends the repetitions.
    pub fn give_up(&mut self, partition: PartitionRef) {
        if self.is_of_this_term(partition) {
            self.owned.remove(&partition.partition);
        }
    }

    /// Everything that is owned is to be told.
    pub fn tell_again(&mut self, catalog: &Catalog) {
        for (partition, totals) in &self.owned {
            self.untold.put_all(*partition, totals, catalog);
        }
    }

    /// Takes what is untold, call by call: a budget, of how many partitions, and what of some of them.
    pub fn take_untold(&mut self) -> Vec<(BudgetId, PartitionCount, Vec<PartitionTotals>)> {
        let Some(Answering { term, partitions: count }) = self.answering else {
            return Vec::new();
        };
        let untold = std::mem::take(&mut self.untold.0).into_iter();
        let call = |(budget, partitions): (_, BTreeMap<_, _>)| {
            let partitions = partitions.into_iter();
            let of = |(partition, totals)| PartitionTotals { term, partition, totals };
            (budget, count, partitions.map(of).collect())
        };
        untold.map(call).collect()
    }

    /// Puts back what the cache did not take, where nothing newer has come meanwhile.
    pub fn put_back(&mut self, budget: BudgetId, partitions: Vec<PartitionTotals>) {
        for PartitionTotals { term, partition, totals } in partitions {
            if self.answering.is_some_and(|it| it.term == term) {
                let untold = self.untold.0.entry(budget.clone()).or_default();
                untold.entry(partition).or_insert(totals);
            }
        }
    }
}

impl Untold {
    fn put(&mut self, budget: &BudgetId, partition: PartitionId, totals: BudgetTotals) {
        self.0.entry(budget.clone()).or_default().insert(partition, totals);
    }

    /// Puts a partition's totals of every budget, of those too that it knows nothing of.
    fn put_all(
        &mut self,
        partition: PartitionId,
        totals: &BTreeMap<BudgetId, BudgetTotals>,
        catalog: &Catalog,
    ) {
        let silent = catalog.iter().filter(|budget| !totals.contains_key(&budget.id));
        for budget in silent {
            self.put(&budget.id, partition, BudgetTotals::default());
        }
        for (budget, totals) in totals {
            self.put(budget, partition, totals.clone());
        }
    }
}
