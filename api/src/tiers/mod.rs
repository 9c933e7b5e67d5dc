//! The tiers: the sources of answers. Each tier reads several budgets at once and is independent of the others.

pub mod guard;
pub mod memory;
pub mod recount;
pub mod redis;
pub mod summary;

use schemas::{BudgetId, CombinedTotals};

/// A transient failure of a tier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TierError(pub String);

/// A tier's totals, one entry per requested budget, in order; `None` where the tier has no complete totals.
pub type TierAnswers = Vec<Option<CombinedTotals>>;

/// Logs damaged totals. The damaged budget has no answer from this tier; other budgets are unaffected.
pub fn log_damaged(budget: &BudgetId, error: &dyn std::fmt::Display) {
    tracing::error!(%budget, %error, "stored totals are damaged, skipping the tier");
}
