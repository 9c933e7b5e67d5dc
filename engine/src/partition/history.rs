//! Writes completed history points before the commit that passes them.
//!
//! In this order, no committed position lacks its points. A point is a function of the log: if the commit fails, the
//! next owner completes the same point again and writes the same bytes.

use backon::Retryable;
use runtime::clock::now_ms;
use schemas::{BudgetId, HistoryPoint};
use storage::store::{Histories, PartitionRef, StoreError};

use super::OWNER_RETRY;
use super::commit::CommitError;

/// Writes points until the store has them, without an attempt limit: the commit waits for the same store.
pub(super) async fn write_history(
    store: &dyn Histories,
    partition: PartitionRef,
    points: &[(BudgetId, HistoryPoint)],
) -> Result<(), CommitError> {
    if points.is_empty() {
        return Ok(());
    }
    let written = (|| store.write_history(partition, points, now_ms()))
        .retry(OWNER_RETRY)
        .when(|error| matches!(error, StoreError::Unavailable(_)))
        .notify(|error, retry_in| {
            tracing::warn!(
                partition = %partition.partition,
                %error,
                retry_in_ms = retry_in.as_millis() as u64,
                "failed to write history points, retrying",
            );
        });
    written.await.map_err(|error| CommitError::Corrupt(error.to_string()))
}
