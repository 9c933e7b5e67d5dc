//! The first tier behind memory: totals that the partition owners publish to the cache.
//!
//! One round trip for any number of budgets.

use std::sync::Arc;

use schemas::BudgetId;
use storage::cache::Cache;

use super::{TierAnswers, TierError};

/// Reads the budgets' totals from the cache.
pub async fn read(cache: &Arc<dyn Cache>, budgets: &[BudgetId]) -> Result<TierAnswers, TierError> {
    let found = cache.read(budgets).await.map_err(|error| TierError(error.to_string()))?;
    if found.len() != budgets.len() {
        let (found, requested) = (found.len(), budgets.len());
        return Err(TierError(format!("{found} answers for {requested} budgets")));
    }
    Ok(found)
}
