//! The second tier behind memory: the committed totals of all partitions, read from the store and combined.
//!
//! One store read for all requested budgets.

use std::sync::Arc;

use schemas::{BudgetId, BudgetTotals, CombinedTotals};
use storage::store::{BudgetSummary, Store, StoreError};

use super::{TierAnswers, TierError, log_damaged};
use crate::active_generation::{ActiveGenerationCache, ServedGeneration};

/// Reads the committed totals of the active generation.
pub async fn read(
    store: &Arc<dyn Store>,
    generation: &ActiveGenerationCache,
    budgets: &[BudgetId],
) -> Result<TierAnswers, TierError> {
    let unavailable = |error: StoreError| TierError(error.to_string());
    // No processor has started yet.
    let Some(active) = generation.get().await.map_err(unavailable)? else {
        return Ok(vec![None; budgets.len()]);
    };
    let summaries = store.summaries(active.term.generation, active.partitions, budgets);
    let read = budgets.iter().zip(summaries.await.map_err(unavailable)?);
    Ok(read
        .map(|(budget, summary)| {
            let summary = summary.inspect_err(|error| log_damaged(budget, error)).ok()?;
            combine(&active, budget, summary)
        })
        .collect())
}

/// Combines what readers are shown of the partitions; `None` while a partition is missing because it was never claimed.
fn combine(
    active: &ServedGeneration,
    budget: &BudgetId,
    summary: BudgetSummary,
) -> Option<CombinedTotals> {
    let shown: BudgetSummary =
        summary.into_iter().map(|part| part.map(BudgetTotals::into_shown)).collect();
    CombinedTotals::merge(active.term, active.partitions, &shown)
        .inspect_err(|error| tracing::debug!(%budget, %error, "summary is incomplete"))
        .ok()
}
