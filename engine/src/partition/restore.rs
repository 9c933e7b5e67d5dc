//! Restoring people at a takeover: reading person rows back into the state. The records after `rows_position` are
//! replayed from the log by the `actor` module.

use backon::Retryable;
use futures_util::stream::{self, StreamExt};
use schemas::{PersonRow, Position, buckets};
use storage::store::{Checkpoint, PartitionRef, People, StoreError};
use tokio_util::sync::CancellationToken;

use super::{HaltReason, OWNER_RETRY};
use crate::fold::PartitionState;

/// Maximum number of buckets read at the same time.
const MAX_CONCURRENT_BUCKETS: usize = 16;

/// How reading the person rows ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum RestoreOutcome {
    /// Every row is in the state.
    Complete,
    /// The owner was asked to stop meanwhile.
    Stopped,
    /// A row belongs to a record that the totals do not contain.
    RowAheadOfTotals,
}

/// Reads every person row into the state that the checkpoint's totals describe.
pub(super) async fn restore_people(
    store: &dyn People,
    id: PartitionRef,
    checkpoint: &Checkpoint,
    state: &mut PartitionState,
    stop: &CancellationToken,
) -> Result<RestoreOutcome, HaltReason> {
    if checkpoint.rows_position == Position::START {
        return Ok(RestoreOutcome::Complete);
    }
    let position = checkpoint.position;
    let mut buckets = stream::iter(buckets())
        .map(|bucket| read_bucket(store, id, bucket))
        .buffer_unordered(MAX_CONCURRENT_BUCKETS);
    loop {
        let rows = tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(RestoreOutcome::Stopped),
            rows = buckets.next() => rows,
        };
        let Some(rows) = rows else { return Ok(RestoreOutcome::Complete) };
        for row in rows? {
            if !position.includes(row.offset) {
                tracing::error!(
                    partition = %id.partition,
                    offset = %row.offset,
                    %position,
                    "person row is ahead of the totals: the store lost an acknowledged commit",
                );
                return Ok(RestoreOutcome::RowAheadOfTotals);
            }
            if !state.restore(&row) {
                return Err(HaltReason::Store(format!(
                    "the person row at offset {} does not fit the totals of budget `{}` at {position}",
                    row.offset, row.budget
                )));
            }
        }
    }
}

async fn read_bucket(
    store: &dyn People,
    id: PartitionRef,
    bucket: u8,
) -> Result<Vec<PersonRow>, HaltReason> {
    let read = || async move {
        let mut rows = Vec::new();
        store.read_people(id, bucket, &mut |row| rows.push(row)).await?;
        Ok(rows)
    };
    read.retry(OWNER_RETRY)
        .when(|error| matches!(error, StoreError::Unavailable(_)))
        .notify(|error, pause| {
            tracing::warn!(
                partition = %id.partition,
                bucket,
                %error,
                retry_in_ms = pause.as_millis() as u64,
                "failed to read person rows, retrying",
            );
        })
        .await
        .map_err(HaltReason::from_store)
}
