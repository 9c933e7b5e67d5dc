//! The second tier: each partition's committed totals, read from the store and added up. One fetch for all budgets
//! asked for.

use std::sync::Arc;

use schemas::{BudgetId, CombinedTotals};
use storage::store::{Store, StoreError, Summary};

use super::{Found, TierError, damaged};
use crate::generation::{Current, CurrentGeneration};

/// Reads the committed totals of the current generation.
pub async fn read(
    store: &Arc<dyn Store>,
    generation: &CurrentGeneration,
    budgets: &[BudgetId],
) -> Result<Found, TierError> {
    let unavailable = |error: StoreError| TierError(error.to_string());
    // Nobody has started to count yet.
    let Some(current) = generation.get().await.map_err(unavailable)? else {
        return Ok(vec![None; budgets.len()]);
    };
    let summaries = store.summaries(current.term.generation, current.partitions, budgets);
    let read = budgets.iter().zip(summaries.await.map_err(unavailable)?);
    Ok(read
        .map(|(budget, summary)| {
            let summary = summary.inspect_err(|error| damaged(budget, error)).ok()?;
            whole(&current, budget, &summary)
        })
        .collect())
}

/// A partition that was never claimed is missing: no answer here.
fn whole(current: &Current, budget: &BudgetId, summary: &Summary) -> Option<CombinedTotals> {
    CombinedTotals::merge(current.term, current.partitions, summary)
        .inspect_err(|fault| tracing::debug!(%budget, %fault, "no whole summary"))
        .ok()
}
