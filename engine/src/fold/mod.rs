//! The fold: how one record changes a partition's state. Pure: integers only, no clock, no configuration, no I/O, and
//! no order that depends on a hash.
//!
//! A person's newest submission wins: the old shares are subtracted and the new ones added in one step. A withdrawal
//! subtracts; one of somebody who has never submitted leaves no row, unless its id has to be recognised again. A
//! submission id that is among the person's latest changes nothing. What stands behind a close marker of its budget
//! changes nothing, until a marker reopens the budget. Someone who is annulled does not count until restored, which the
//! fold does behind a close marker too; what they submit meanwhile is kept. Where records have a publish step, what readers are shown stays
//! until as many people have changed; closing shows everything.
//!
//! | file | owns |
//! |---|---|
//! | `budget` | one budget in one partition |
//! | `history` | the history points that records complete |
//! | `people` | every person's current shares, in compact memory |
//! | `packed` | the bit layout of an offset and shares |
//! | `shares` | one person's shares while a record is folded |
//! | `sums` | what one person adds to a budget's totals, and replacing it |

mod budget;
mod history;
mod packed;
mod people;
mod shares;
mod sums;

use std::collections::BTreeMap;

use schemas::{
    BudgetId, BudgetTotals, HistoryPoint, Offset, PartitionCount, PartitionId, PersonKey,
    PersonRow, Position, RecordDecoder, RecordFault, RecordView, partition_for,
};
use storage::log::Record;

use budget::BudgetState;
pub use history::HistoryFloor;

/// What folding a record did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FoldOutcome {
    /// The record changed the state.
    Applied,
    /// The record repeats a submission id and changed nothing.
    Duplicate,
    /// The record stands behind the close marker of its budget and changed nothing.
    Late,
    /// The record is rejected.
    DeadLetter(DeadLetterReason),
}

/// Why a record is rejected. Depends only on the record and the records before it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeadLetterReason {
    /// The record cannot be decoded.
    #[error(transparent)]
    Record(#[from] RecordFault),
    /// The person belongs to another partition, where they may already be counted.
    #[error("the person belongs to partition {0}")]
    WrongPartition(PartitionId),
    /// The number of categories differs from the budget's first submission.
    #[error("{found} categories, where the budget's first submission had {expected}")]
    Categories {
        /// Categories of the budget's first submission.
        expected: usize,
        /// Categories of this record.
        found: usize,
    },
}

/// The totals and the people of a budget contradict each other: the state must not be folded further.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InconsistentState {
    /// A person's previous shares are not in the totals.
    #[error(
        "the totals of budget `{budget}` do not contain the previous shares of the person at offset {offset}"
    )]
    SharesNotInTotals {
        /// The budget.
        budget: BudgetId,
        /// The person's new record, which replaces the previous shares.
        offset: Offset,
    },
    /// The totals are not the sum of the people's shares.
    #[error(
        "the totals of budget `{budget}` count {total} people, but {recounted} people are known; \
         or their shares differ"
    )]
    TotalsDifferFromPeople {
        /// The budget.
        budget: BudgetId,
        /// People in the totals.
        total: u64,
        /// People who are known.
        recounted: u64,
    },
    /// The people are others than those that the totals were committed with, although their sums are the same.
    #[error("the totals of budget `{budget}` were committed with other rows of its people")]
    OtherPeople {
        /// The budget.
        budget: BudgetId,
    },
}

/// Where people in memory come from, before new records are folded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeopleOrigin {
    /// From stored rows, or an owner's memory: the rows may be others than the totals were committed with.
    Rows,
    /// From the log alone: what was committed with the totals is out of date where it differs.
    Log,
}

/// Which state a record updates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FoldMode {
    /// Totals and people: the record is new.
    Live,
    /// Person states only: a takeover replays a record that the totals already contain.
    Replay,
}

/// A partition's state: a function of a prefix of its log.
#[derive(Debug)]
pub struct PartitionState {
    partition: PartitionId,
    partitions: PartitionCount,
    budgets: Vec<BudgetState>,
    by_id: BTreeMap<BudgetId, usize>,
    /// Index of the last record's budget: most often the next record's too.
    recent: usize,
    /// Upper bound of the size of the changed totals and of the history points when they are stored.
    changed_bytes: usize,
    history_floor: HistoryFloor,
    decoder: RecordDecoder,
}

impl PartitionState {
    /// Creates the state that committed totals describe; the caller restores person rows next.
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
            changed_bytes: 0,
            history_floor: HistoryFloor::NONE,
            decoder: RecordDecoder::default(),
        };
        for (id, totals) in totals {
            state.add_budget(BudgetState::new(id, totals));
        }
        state
    }

    /// Restores a stored person row. Returns `false` when it does not fit the totals: the store is corrupt.
    ///
    /// A row that comes twice, or before an older one of the same person, changes nothing.
    #[must_use]
    pub fn restore(&mut self, row: &PersonRow) -> bool {
        let Some(index) = self.by_id.get(&row.budget) else { return false };
        self.budgets[*index].people.restore(row)
    }

    /// Reserves memory for the people whom the totals count, before their rows are restored.
    pub fn reserve_people(&mut self) {
        for budget in &mut self.budgets {
            budget.people.reserve(budget.totals.people);
        }
    }

    /// Restores a row that may be newer than the totals, until [`set_totals`](Self::set_totals) sets those that contain
    /// it. Returns `false` when it does not fit the other rows of its budget.
    #[must_use]
    pub fn restore_ahead(&mut self, row: &PersonRow) -> bool {
        let index = match self.by_id.get(&row.budget) {
            Some(index) => *index,
            None => self.add_budget(BudgetState::empty(row.budget.clone())),
        };
        let people = &mut self.budgets[index].people;
        if people.categories() == 0 && !row.basis_points.is_empty() {
            people.set_categories(row.basis_points.len());
        }
        people.restore(row)
    }

    /// Replaces the totals by later ones of the same log. Returns `false` when the people do not fit them.
    #[must_use]
    pub fn set_totals(&mut self, totals: Vec<(BudgetId, BudgetTotals)>) -> bool {
        for budget in &mut self.budgets {
            budget.totals = BudgetTotals::default();
        }
        let mut fits = true;
        for (id, totals) in totals {
            let Some(index) = self.by_id.get(&id) else {
                self.add_budget(BudgetState::new(id, totals));
                continue;
            };
            let budget = &mut self.budgets[*index];
            let categories = totals.categories.len();
            if budget.people.categories() == 0 {
                budget.people.set_categories(categories);
            }
            fits &= budget.people.categories() == categories;
            budget.totals = totals;
        }
        // Every record of a budget gives it totals.
        fits && self
            .budgets
            .iter()
            .all(|budget| budget.people.len() == 0 || budget.totals.position > Position::START)
    }

    /// Marks the people as changed whose row may not be written: those whose latest record is not below
    /// `rows_position`.
    pub fn mark_changed_from(&mut self, rows_position: Position) {
        for budget in &mut self.budgets {
            budget.people.mark_changed_from(rows_position);
        }
    }

    /// Folds one record into the state.
    ///
    /// # Errors
    /// When the totals and the people contradict each other. The state must not be used afterwards.
    pub fn fold(
        &mut self,
        record: Record<'_>,
        mode: FoldMode,
    ) -> Result<FoldOutcome, InconsistentState> {
        let mut decoder = std::mem::take(&mut self.decoder);
        let outcome = match decoder.decode(record.key, record.value) {
            Ok(view) => self.fold_view(view, record.offset, mode),
            Err(fault) => Ok(FoldOutcome::DeadLetter(fault.into())),
        };
        self.decoder = decoder;
        outcome
    }

    fn fold_view(
        &mut self,
        view: RecordView<'_>,
        offset: Offset,
        mode: FoldMode,
    ) -> Result<FoldOutcome, InconsistentState> {
        let home = partition_for(&view.person, self.partitions);
        if home != self.partition {
            return Ok(FoldOutcome::DeadLetter(DeadLetterReason::WrongPartition(home)));
        }
        match self.budget_index(view.budget) {
            Ok(index) => {
                let budget = &mut self.budgets[index];
                let (had_changed, history_bytes) = (budget.changed, budget.history.bytes());
                let pending_bytes = budget.pending_bytes();
                let outcome = budget.fold(view, offset, mode, &self.history_floor);
                if had_changed {
                    self.changed_bytes =
                        self.changed_bytes - pending_bytes + budget.pending_bytes();
                } else if budget.changed {
                    self.changed_bytes += budget.stored_bytes();
                }
                self.changed_bytes += budget.history.bytes() - history_bytes;
                outcome
            }
            Err(fault) => Ok(FoldOutcome::DeadLetter(fault.into())),
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
                self.add_budget(BudgetState::empty(id))
            }
        };
        Ok(self.recent)
    }

    fn add_budget(&mut self, budget: BudgetState) -> usize {
        let index = self.budgets.len();
        self.by_id.insert(budget.id.clone(), index);
        self.budgets.push(budget);
        index
    }

    /// Sets which history points are kept from now on. None are by default.
    pub fn set_history_floor(&mut self, floor: HistoryFloor) {
        self.history_floor = floor;
    }

    /// Takes the history points that were completed since the last call, of each budget in order.
    pub fn take_history(&mut self) -> Vec<(BudgetId, HistoryPoint)> {
        let mut taken = Vec::new();
        for budget in &mut self.budgets {
            let BudgetState { id, history, .. } = budget;
            taken.extend(history.take().into_iter().map(|point| (id.clone(), point)));
        }
        taken
    }

    /// Returns how much the totals that [`take_changed`](Self::take_changed) takes, and the history points completed
    /// with them, have at most when they are stored.
    pub fn changed_bytes(&self) -> usize {
        self.changed_bytes
    }

    /// Takes the totals of the budgets that changed since the last call.
    pub fn take_changed(&mut self) -> Vec<(BudgetId, BudgetTotals)> {
        self.changed_bytes = 0;
        let mut changed = Vec::new();
        for budget in &mut self.budgets {
            if std::mem::take(&mut budget.changed) {
                changed.push((budget.id.clone(), budget.totals.clone()));
            }
        }
        changed
    }

    /// Returns the totals of every budget, ordered by id.
    pub fn totals(&self) -> impl Iterator<Item = (&BudgetId, &BudgetTotals)> {
        self.by_id.values().map(|index| (&self.budgets[*index].id, &self.budgets[*index].totals))
    }

    /// Returns one budget's totals; `None` if no record mentions it.
    pub fn budget_totals(&self, budget: &BudgetId) -> Option<&BudgetTotals> {
        self.by_id.get(budget).map(|index| &self.budgets[*index].totals)
    }

    /// Recounts every budget from people's current shares, ordered by id.
    ///
    /// A second way to the totals, independent of the running sums. Without positions and times.
    pub fn recount(&self) -> impl Iterator<Item = (&BudgetId, BudgetTotals)> {
        self.by_id.iter().map(|(id, index)| (id, self.budgets[*index].recount()))
    }

    /// Checks that every budget's totals are the sum of its people's current shares, and its people those that the
    /// totals were committed with. Totals of earlier releases do not say the latter, and do from now on.
    ///
    /// # Errors
    /// The first budget of which one is not so.
    pub fn check_totals_match_people(
        &mut self,
        origin: PeopleOrigin,
    ) -> Result<(), InconsistentState> {
        for index in self.by_id.values() {
            let budget = &mut self.budgets[*index];
            let recounted = budget.recount();
            let totals = &mut budget.totals;
            let sums = |totals: &BudgetTotals| (totals.people, totals.annulled);
            if sums(totals) != sums(&recounted) || totals.categories != recounted.categories {
                return Err(InconsistentState::TotalsDifferFromPeople {
                    budget: budget.id.clone(),
                    total: totals.people,
                    recounted: recounted.people,
                });
            }
            let replace = |digest: &mut Option<_>, recounted| {
                let committed = std::mem::replace(digest, recounted);
                committed.is_some() && committed != recounted
            };
            let other_rows = replace(&mut totals.people_digest, recounted.people_digest);
            let other_content = replace(&mut totals.content_digest, recounted.content_digest);
            if other_rows || other_content {
                match origin {
                    PeopleOrigin::Rows => {
                        return Err(InconsistentState::OtherPeople { budget: budget.id.clone() });
                    }
                    // The next commit replaces the digest, also if no record of the budget follows.
                    PeopleOrigin::Log if !budget.changed => {
                        budget.changed = true;
                        self.changed_bytes += budget.stored_bytes();
                    }
                    PeopleOrigin::Log => {}
                }
            }
        }
        Ok(())
    }

    /// Returns the current allocation of every person who counts in a budget. Ordered by person key.
    pub fn allocations(&self, budget: &BudgetId) -> Vec<(PersonKey, Vec<u16>)> {
        let Some(index) = self.by_id.get(budget) else { return Vec::new() };
        let counting = self.budgets[*index].people.counting();
        let mut allocations: Vec<_> =
            counting.map(|(person, shares)| (person, shares.iter().collect())).collect();
        allocations.sort_unstable_by_key(|(person, _)| *person);
        allocations
    }

    /// Returns the number of people in the state, including those who withdrew.
    pub fn people(&self) -> usize {
        self.budgets.iter().map(|budget| budget.people.len()).sum()
    }

    /// Returns the number of people who changed since their row was last taken.
    pub fn changed_people(&self) -> usize {
        self.budgets.iter().map(|budget| budget.people.changed()).sum()
    }

    /// Begins a scan of the people who are in the state now.
    pub fn begin_row_scan(&self) -> RowScan {
        let people = self.budgets.iter().map(|budget| budget.people.len()).collect();
        RowScan { people, budget: 0, slot: 0 }
    }

    /// Takes the scan's next rows of changed people, about `limit` of them. `None` at the scan's end.
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

/// A scan over the people who were in the state when it began.
///
/// People added later belong to the next scan, so a scan ends however fast they are added.
#[derive(Debug)]
pub struct RowScan {
    /// Number of people of each budget when the scan began.
    people: Vec<usize>,
    budget: usize,
    slot: usize,
}

#[cfg(test)]
mod annulment_tests;
#[cfg(test)]
mod closing_tests;
#[cfg(test)]
mod history_tests;
#[cfg(test)]
mod publish_step_tests;
#[cfg(test)]
mod tests;
