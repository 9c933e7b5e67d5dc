//! The fold: what one record does to a partition's state. Pure: integers only, no clock, no configuration, no I/O, and
//! no order that depends on a hash.
//!
//! A person's newest submission wins: the old shares are subtracted and the new ones added in one step. A withdrawal
//! subtracts. A submission id that is among the person's latest changes nothing.

mod packed;
mod people;
mod shares;

use std::collections::BTreeMap;

use schemas::{
    BudgetId, BudgetTotals, CategoryTotals, Offset, PartitionCount, PartitionId, PersonKey,
    PersonRow, RecordDecoder, RecordFault, RecordView, partition_for,
};
use storage::log::Record;

use people::{Known, People, PersonSlot};
use shares::Shares;

/// What came of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It took effect.
    Applied,
    /// It repeats a submission id: nothing changed.
    Duplicate,
    /// It cannot be taken.
    DeadLetter(DeadReason),
}

/// Why a record cannot be taken. Decided by the record and the records before it alone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeadReason {
    /// It is not one of ours.
    #[error(transparent)]
    Record(#[from] RecordFault),
    /// Its person belongs to another partition, where they may be counted already.
    #[error("the person belongs to partition {0}")]
    WrongPartition(PartitionId),
    /// The budget's first submission had another number of categories.
    #[error("{found} categories, where the budget's first submission had {expected}")]
    Categories {
        /// As in the budget's first submission.
        expected: usize,
        /// As in this record.
        found: usize,
    },
}

/// How far a record goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Into totals and people: the record is new.
    Everything,
    /// Into people only: a take-over replays what the totals contain already.
    PeopleOnly,
}

/// One budget in one partition.
#[derive(Debug)]
struct BudgetState {
    id: BudgetId,
    totals: BudgetTotals,
    people: People,
    changed: bool,
}

/// A partition's whole state: a function of a prefix of its log.
#[derive(Debug)]
pub struct PartitionState {
    partition: PartitionId,
    partitions: PartitionCount,
    budgets: Vec<BudgetState>,
    by_id: BTreeMap<BudgetId, usize>,
    /// The last record's budget: most often the next one's too.
    recent: usize,
    decoder: RecordDecoder,
}

impl PartitionState {
    /// The state that committed totals describe; people's rows are put in next.
    pub fn new(
        partition: PartitionId,
        partitions: PartitionCount,
        totals: Vec<(BudgetId, BudgetTotals)>,
    ) -> Self {
        let mut state = Self {
            partition,
            partitions,
            budgets: Vec::new(),
            by_id: BTreeMap::new(),
            recent: 0,
            decoder: RecordDecoder::default(),
        };
        for (id, totals) in totals {
            state.add_budget(id, totals);
        }
        state
    }

    /// Puts a stored row in. `false` when it does not fit the totals: damage.
    #[must_use]
    pub fn restore(&mut self, row: &PersonRow) -> bool {
        let Some(index) = self.by_id.get(&row.budget) else { return false };
        self.budgets[*index].people.restore(row)
    }

    /// Takes one record in.
    pub fn fold(&mut self, record: Record<'_>, reach: Reach) -> Outcome {
        let mut decoder = std::mem::take(&mut self.decoder);
        let outcome = match decoder.decode(record.key, record.value) {
            Ok(view) => self.fold_view(view, record.offset, reach),
            Err(fault) => Outcome::DeadLetter(fault.into()),
        };
        self.decoder = decoder;
        outcome
    }

    fn fold_view(&mut self, view: RecordView<'_>, offset: Offset, reach: Reach) -> Outcome {
        let home = partition_for(&view.person, self.partitions);
        if home != self.partition {
            return Outcome::DeadLetter(DeadReason::WrongPartition(home));
        }
        match self.budget_index(view.budget) {
            Ok(index) => self.budgets[index].fold(view, offset, reach),
            Err(fault) => Outcome::DeadLetter(fault.into()),
        }
    }

    fn budget_index(&mut self, id: &str) -> Result<usize, RecordFault> {
        if self.budgets.get(self.recent).is_some_and(|budget| budget.id.as_str() == id) {
            return Ok(self.recent);
        }
        self.recent = match self.by_id.get(id) {
            Some(index) => *index,
            None => {
                let id = BudgetId::parse(id).map_err(|_| RecordFault::Budget)?;
                self.add_budget(id, BudgetTotals::default())
            }
        };
        Ok(self.recent)
    }

    fn add_budget(&mut self, id: BudgetId, totals: BudgetTotals) -> usize {
        let index = self.budgets.len();
        self.by_id.insert(id.clone(), index);
        let people = People::new(totals.categories.len());
        self.budgets.push(BudgetState { id, totals, people, changed: false });
        index
    }

    /// The totals of the budgets that changed since this was last asked.
    pub fn take_changed(&mut self) -> Vec<(BudgetId, BudgetTotals)> {
        let mut changed = Vec::new();
        for budget in &mut self.budgets {
            if std::mem::take(&mut budget.changed) {
                changed.push((budget.id.clone(), budget.totals.clone()));
            }
        }
        changed
    }

    /// The totals of every budget, in the order of their ids.
    pub fn totals(&self) -> impl Iterator<Item = (&BudgetId, &BudgetTotals)> {
        self.by_id.values().map(|index| (&self.budgets[*index].id, &self.budgets[*index].totals))
    }

    /// One budget's totals, if there is anything about it.
    pub fn budget_totals(&self, budget: &BudgetId) -> Option<&BudgetTotals> {
        self.by_id.get(budget).map(|index| &self.budgets[*index].totals)
    }

    /// What everyone's shares add up to, budget by budget in the order of their ids: another way to the totals than
    /// one record at a time. Positions and times are not in it.
    pub fn recount(&self) -> impl Iterator<Item = (&BudgetId, BudgetTotals)> {
        self.by_id.iter().map(|(id, index)| (id, self.budgets[*index].recount()))
    }

    /// What everyone who counts in a budget gives it now, in the order of their keys.
    pub fn allocations(&self, budget: &BudgetId) -> Vec<(PersonKey, Vec<u16>)> {
        let Some(index) = self.by_id.get(budget) else { return Vec::new() };
        let counting = self.budgets[*index].people.counting();
        let mut allocations: Vec<_> =
            counting.map(|(person, shares)| (person, shares.iter().collect())).collect();
        allocations.sort_unstable_by_key(|(person, _)| *person);
        allocations
    }

    /// How many people the state holds, those who withdrew included.
    pub fn people(&self) -> usize {
        self.budgets.iter().map(|budget| budget.people.len()).sum()
    }

    /// How many people have changed since their row was last taken.
    pub fn changed_people(&self) -> usize {
        self.budgets.iter().map(|budget| budget.people.changed()).sum()
    }

    /// Begins a scan of whoever is there now.
    pub fn begin_row_scan(&self) -> RowScan {
        let people = self.budgets.iter().map(|budget| budget.people.len()).collect();
        RowScan { people, budget: 0, slot: 0 }
    }

    /// Takes about `limit` rows of changed people, the next of the scan. `None` when it is at its end.
    pub fn take_changed_rows(
        &mut self,
        scan: &mut RowScan,
        limit: usize,
    ) -> Option<Vec<PersonRow>> {
        while let Some(people) = scan.people.get(scan.budget)
            && let Some(budget) = self.budgets.get_mut(scan.budget)
        {
            let (rows, slot) = budget.people.take_changed(&budget.id, scan.slot..*people, limit);
            scan.slot = slot;
            if !rows.is_empty() {
                return Some(rows);
            }
            (scan.budget, scan.slot) = (scan.budget + 1, 0);
        }
        None
    }
}

/// A way through everyone who is there when it begins, once. Whoever comes later is for the next one: a scan ends
/// however fast they come.
#[derive(Debug)]
pub struct RowScan {
    /// How many people each budget had.
    people: Vec<usize>,
    budget: usize,
    slot: usize,
}

impl BudgetState {
    fn fold(&mut self, view: RecordView<'_>, offset: Offset, reach: Reach) -> Outcome {
        let categories = view.basis_points.len();
        if categories > 0 && !self.admit_categories(categories) {
            let expected = self.people.categories();
            return Outcome::DeadLetter(DeadReason::Categories { expected, found: categories });
        }
        let outcome = self.fold_person(view, offset, reach);
        if reach == Reach::Everything {
            self.totals.position = offset.next();
            self.totals.updated_at_ms = self.totals.updated_at_ms.max(view.accepted_at_ms);
            self.changed = true;
        }
        outcome
    }

    fn recount(&self) -> BudgetTotals {
        let categories = vec![CategoryTotals::default(); self.people.categories()];
        let mut totals = BudgetTotals { categories, ..BudgetTotals::default() };
        for shares in self.people.shares() {
            totals.apply_delta(&Shares::NONE, &shares);
        }
        totals
    }

    /// The first allocation fixes the number of categories.
    fn admit_categories(&mut self, categories: usize) -> bool {
        if self.people.categories() == 0 {
            self.people.widen(categories);
            self.totals.categories = vec![CategoryTotals::default(); categories];
        }
        self.people.categories() == categories
    }

    fn fold_person(&mut self, view: RecordView<'_>, offset: Offset, reach: Reach) -> Outcome {
        let new = Shares::from_basis_points(view.basis_points);
        let mut slot: PersonSlot<'_> = match self.people.find_or_insert(&view.person) {
            Known::New(slot) => slot,
            Known::Old(slot) if slot.offset() >= offset => return Outcome::Applied,
            Known::Old(slot) if slot.remembers(view.submission) => return Outcome::Duplicate,
            Known::Old(slot) => slot,
        };
        let old = slot.replace(&new, offset, view.submission);
        if reach == Reach::Everything {
            self.totals.apply_delta(&old, &new);
        }
        Outcome::Applied
    }
}

/// The step from a person's old shares to the new ones.
trait ApplyDelta {
    fn apply_delta(&mut self, old: &Shares, new: &Shares);
}

impl ApplyDelta for BudgetTotals {
    fn apply_delta(&mut self, old: &Shares, new: &Shares) {
        let categories = self.categories.iter_mut();
        match (old.counts(), new.counts()) {
            (false, false) => {}
            (false, true) => {
                self.people += 1;
                for (category, new) in categories.zip(new.iter()) {
                    category.basis_points += u64::from(new);
                    category.people_by_percent[percent(new)] += 1;
                }
            }
            (true, false) => {
                self.people -= 1;
                for (category, old) in categories.zip(old.iter()) {
                    category.basis_points -= u64::from(old);
                    category.people_by_percent[percent(old)] -= 1;
                }
            }
            (true, true) => {
                for ((category, old), new) in categories.zip(old.iter()).zip(new.iter()) {
                    category.basis_points = category.basis_points - u64::from(old) + u64::from(new);
                    category.people_by_percent[percent(old)] -= 1;
                    category.people_by_percent[percent(new)] += 1;
                }
            }
        }
    }
}

/// The whole percent of a share: its place in the distribution.
fn percent(basis_points: u16) -> usize {
    usize::from(basis_points / 100)
}

#[cfg(test)]
mod tests;
