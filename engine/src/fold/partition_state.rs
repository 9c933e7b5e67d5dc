//! A partition's state: folds records, and hands over what has changed since the last commit.

use std::collections::BTreeMap;

use schemas::{
    BudgetId, BudgetTotals, HistoryPoint, Offset, PartitionCount, PartitionId, PersonKey,
    RecordDecoder, RecordFault, RecordView, partition_for,
};
use storage::log::Record;

use super::budget::BudgetState;
use super::history::HistoryFloor;
use super::outcome::{DeadLetterReason, FoldMode, FoldOutcome, InconsistentState};

/// A partition's state: a function of a prefix of its log.
#[derive(Debug)]
pub struct PartitionState {
    partition: PartitionId,
    partitions: PartitionCount,
    pub(super) budgets: Vec<BudgetState>,
    pub(super) by_id: BTreeMap<BudgetId, usize>,
    /// Index of the last record's budget: most often the next record's too.
    recent: usize,
    /// Upper bound of the size of the changed totals and of the history points when they are stored.
    pub(super) changed_bytes: usize,
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

    pub(super) fn add_budget(&mut self, budget: BudgetState) -> usize {
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
    pub fn person_count(&self) -> usize {
        self.budgets.iter().map(|budget| budget.people.len()).sum()
    }

    /// Returns the number of people who changed since their row was last taken.
    pub fn changed_person_count(&self) -> usize {
        self.budgets.iter().map(|budget| budget.people.changed()).sum()
    }
}
