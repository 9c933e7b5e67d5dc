//! The second tier: each partition's committed totals, read from the store and added up.

use std::sync::Arc;

use futures_util::future::try_join_all;
use schemas::{BudgetId, CombinedTotals};
use storage::store::{GenerationRecord, Store, StoreError};

use super::{Found, TierError, damaged};

/// Reads the committed totals of the current generation.
pub async fn read(store: &Arc<dyn Store>, budgets: &[BudgetId]) -> Result<Found, TierError> {
    let current = store.current_generation().await.map_err(|e| TierError(e.to_string()))?;
    match current {
        // Nobody has started to count yet.
        None => Ok(vec![None; budgets.len()]),
        Some(current) => {
            try_join_all(budgets.iter().map(|budget| read_one(store, &current, budget))).await
        }
    }
}

async fn read_one(
    store: &Arc<dyn Store>,
    current: &GenerationRecord,
    budget: &BudgetId,
) -> Result<Option<CombinedTotals>, TierError> {
    match store.budget_totals(current.generation, current.partitions, budget).await {
        Ok(totals) => {
            // A partition that was never claimed is missing: no answer here.
            Ok(CombinedTotals::merge(current.generation, current.partitions, &totals)
                .inspect_err(|fault| tracing::debug!(%budget, %fault, "no whole summary"))
                .ok())
        }
        Err(error @ StoreError::Unavailable(_)) => Err(TierError(error.to_string())),
        Err(error @ StoreError::Corrupt(_)) => {
            damaged(budget, &error);
            Ok(None)
        }
    }
}
