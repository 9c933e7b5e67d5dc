//! Restores a partition's state from stored totals and person rows, and checks that they belong together.

use schemas::{BudgetId, BudgetTotals, PersonRow, Position};

use super::budget::BudgetState;
use super::outcome::InconsistentState;
use super::partition_state::PartitionState;

/// Where people in memory come from, before new records are folded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeopleOrigin {
    /// From stored rows, or an owner's memory: the rows may be others than the totals were committed with.
    Rows,
    /// From the log alone: what was committed with the totals is out of date where it differs.
    Log,
}

impl PartitionState {
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

    /// Checks that each budget's totals are the sum of its people's current shares, and that the digests of both match.
    /// Totals of earlier releases have no digests, and get them here.
    ///
    /// # Errors
    /// The first budget that does not match.
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
}
