//! The first tier behind memory: the aggregate in the cache, kept up by the partitions' owners. One round trip for
//! any number of budgets.

use std::sync::Arc;

use schemas::BudgetId;
use storage::cache::Cache;

use super::{Found, TierError};

/// Reads the cache.
pub async fn read(cache: &Arc<dyn Cache>, budgets: &[BudgetId]) -> Result<Found, TierError> {
    let found = cache.read(budgets).await.map_err(|error| TierError(error.to_string()))?;
    if found.len() != budgets.len() {
        let (found, asked) = (found.len(), budgets.len());
        return Err(TierError(format!("{found} answers for {asked} budgets")));
    }
    Ok(found)
}
