//! The tiers: where an answer can come from. Each reads for several budgets at once; none knows of the others.

pub mod guard;
pub mod memory;
pub mod recount;
pub mod redis;
pub mod summary;

use schemas::{BudgetId, CombinedTotals};

/// A tier did not answer. Worth trying again, after a while.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TierError(pub String);

/// One entry for each budget asked for, in order; `None` where the tier has no whole answer.
pub type Found = Vec<Option<CombinedTotals>>;

/// The stored totals of one budget are damaged: that budget has no answer here, the others are unaffected.
fn damaged(budget: &BudgetId, error: &dyn std::fmt::Display) {
    tracing::error!(%budget, %error, "totals that cannot be: passed over");
}
