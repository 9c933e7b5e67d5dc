//! The tiers: the sources of answers. Each tier reads several budgets at once and is independent of the others.

pub mod guard;
pub mod memory;
pub mod recount;
pub mod redis;
pub mod summary;

use std::time::Duration;

use schemas::{BudgetId, CombinedTotals};

/// Pause after a recount, during which its result is used. Also the minimum age of a recounted answer before the next
/// recount.
pub const RECOUNT_INTERVAL: Duration = Duration::from_secs(5);

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
