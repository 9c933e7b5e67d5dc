//! Comparing totals: differences between two derivations of the same log, down to the category.
//!
//! Owns what is compared and the text of a difference. The caller reads both sides.

mod difference;

use schemas::{BudgetId, BudgetTotals, Closing, Position, PublishStep};

pub use difference::{Comparison, Difference, Scope, Subject};

/// Budgets of a partition with their totals.
pub type TotalsByBudget<'a> = Vec<(&'a BudgetId, &'a BudgetTotals)>;

/// Borrows stored totals by budget.
pub fn by_budget(totals: &[(BudgetId, BudgetTotals)]) -> TotalsByBudget<'_> {
    totals.iter().map(|(budget, totals)| (budget, totals)).collect()
}

/// Pairs the totals of two sides by budget.
///
/// A budget that is missing on one side is paired with empty totals.
pub fn pair_by_budget<'a>(
    log: TotalsByBudget<'a>,
    found: TotalsByBudget<'a>,
) -> Vec<(&'a BudgetId, &'a BudgetTotals, &'a BudgetTotals)> {
    static EMPTY: BudgetTotals = BudgetTotals {
        position: Position::START,
        people: 0,
        updated_at_ms: 0,
        categories: Vec::new(),
        closing: Closing::NONE,
        publish_step: PublishStep::ONE,
        pending: None,
        annulled: 0,
        people_digest: None,
        content_digest: None,
    };
    let of = |totals: &TotalsByBudget<'a>, wanted: &BudgetId| {
        totals.iter().find(|(budget, _)| *budget == wanted).map_or(&EMPTY, |(_, totals)| *totals)
    };
    let only_found =
        found.iter().filter(|(budget, _)| log.iter().all(|(other, _)| other != budget));
    let budgets = log.iter().chain(only_found).map(|(budget, _)| *budget);
    budgets.map(|budget| (budget, of(&log, budget), of(&found, budget))).collect()
}
