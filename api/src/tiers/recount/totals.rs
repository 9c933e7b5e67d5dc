//! Totals counted from person rows.

use std::collections::HashMap;

use schemas::{
    BudgetId, BudgetTotals, CategoryTotals, CombinedTotals, PartitionId, PersonRow, Position,
};

use crate::active_generation::ServedGeneration;
use crate::tiers::log_damaged;

/// The totals of all budgets, counted row by row.
pub(super) struct RecountTotals {
    active: ServedGeneration,
    budgets: HashMap<BudgetId, BudgetRecount>,
}

/// One budget's totals over all partitions. Only positions are kept for each partition.
#[derive(Default)]
struct BudgetRecount {
    positions: Vec<Position>,
    people: u64,
    annulled: u64,
    categories: Vec<CategoryTotals>,
    /// Rows have different numbers of categories.
    is_damaged: bool,
}

impl RecountTotals {
    pub(super) fn new(active: ServedGeneration) -> Self {
        Self { active, budgets: HashMap::new() }
    }

    /// Counts a row of a partition.
    pub(super) fn count(&mut self, partition: PartitionId, row: PersonRow) {
        let partitions = self.active.partitions.get() as usize;
        let budget = self.budgets.entry(row.budget).or_default();
        budget.positions.resize(partitions, Position::START);
        if let Some(position) = budget.positions.get_mut(partition.0 as usize) {
            *position = row.offset.next().max(*position);
        }
        // Without shares the row only records a withdrawal.
        if row.basis_points.is_empty() {
            return;
        }
        if row.annulled {
            budget.annulled += 1;
            return;
        }
        if budget.categories.is_empty() {
            budget.categories = vec![CategoryTotals::default(); row.basis_points.len()];
        }
        if budget.categories.len() != row.basis_points.len() {
            budget.is_damaged = true;
            return;
        }
        budget.people += 1;
        for (category, share) in budget.categories.iter_mut().zip(&row.basis_points) {
            category.add_share(*share);
        }
    }

    /// Returns a budget's totals, all zero if it has no rows; `None` if its rows are damaged.
    pub(super) fn combined(&self, id: &BudgetId) -> Option<CombinedTotals> {
        let ServedGeneration { term, partitions, .. } = self.active;
        let Some(budget) = self.budgets.get(id) else {
            let empty: Vec<_> =
                partitions.partitions().map(|_| Some(BudgetTotals::default())).collect();
            return CombinedTotals::merge(term, partitions, &empty).ok();
        };
        if budget.is_damaged {
            log_damaged(id, &"rows with different numbers of categories");
            return None;
        }
        Some(CombinedTotals {
            term,
            positions: budget.positions.clone(),
            people: budget.people,
            updated_at_ms: 0,
            categories: budget.categories.clone(),
            // Rows do not say whether everything that was accepted in time is written: a recount is never final.
            closed_partitions: 0,
            annulled: budget.annulled,
        })
    }
}
