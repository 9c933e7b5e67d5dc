//! Reads the history of a budget over all partitions of a generation.
//!
//! The committed totals are read first and the history points afterwards, so that a commit in between leaves no gap: it
//! writes the points that it passes first.

use std::ops::Range;

use futures_util::stream::{self, StreamExt, TryStreamExt};
use schemas::{
    BudgetId, Generation, HistoryInstant, HistoryStep, InstantTotals, PartitionCount,
    PartitionHistory, PartitionId, combine_histories,
};

use super::{PartitionRef, Store, StoreError};

/// Maximum concurrent partitions of one read.
const PARTITIONS_IN_FLIGHT: usize = 32;

/// Reads the instants at which everything is known, in order. Without those before the first allocation.
///
/// Returns `None` if a partition was never claimed: its log may have anything.
///
/// # Errors
/// [`StoreError::Corrupt`] also when the partitions contradict each other.
pub async fn read_history(
    store: &dyn Store,
    generation: Generation,
    partitions: PartitionCount,
    budget: &BudgetId,
    step: HistoryStep,
    instants: Range<HistoryInstant>,
) -> Result<Option<Vec<InstantTotals>>, StoreError> {
    let corrupt = |error: &dyn std::fmt::Display| StoreError::Corrupt(error.to_string());
    let summaries = store.summaries(generation, partitions, std::slice::from_ref(budget)).await?;
    let summary = summaries.into_iter().next().transpose().map_err(|error| corrupt(&error))?;
    let Some(current) = summary.into_iter().flatten().collect::<Option<Vec<_>>>() else {
        return Ok(None);
    };
    let parts = (0..).map(PartitionId).zip(current).map(|(partition, current)| {
        let instants = instants.clone();
        async move {
            let id = PartitionRef { generation, partition };
            let points = store.history(id, budget, step, instants).await?;
            Ok::<_, StoreError>(PartitionHistory { points, current })
        }
    });
    let parts = stream::iter(parts.collect::<Vec<_>>()).buffered(PARTITIONS_IN_FLIGHT);
    let parts = parts.try_collect::<Vec<_>>().await?;
    combine_histories(step, &instants, &parts).map(Some).map_err(|error| corrupt(&error))
}
