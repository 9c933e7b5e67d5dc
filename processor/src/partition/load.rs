//! Reading people's rows back at a take-over.

use futures_util::stream::{self, StreamExt};
use schemas::{PersonRow, Position, buckets};
use storage::store::{Checkpoint, PartitionRef, Store, StoreError};
use tokio_util::sync::CancellationToken;

use super::{HaltReason, RETRY_PAUSE};
use crate::fold::PartitionState;

/// Buckets read side by side.
const CONCURRENCY: usize = 16;

/// What reading people's rows came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Restored {
    /// All of them are in.
    Whole,
    /// Told to stop on the way.
    Stopped,
    /// One of them is of a record that the totals do not contain.
    AheadOfTotals,
}

/// Puts everyone's row into the state that the checkpoint's totals describe.
pub(super) async fn restore_people(
    store: &dyn Store,
    id: PartitionRef,
    checkpoint: &Checkpoint,
    state: &mut PartitionState,
    stop: &CancellationToken,
) -> Result<Restored, HaltReason> {
    if checkpoint.state_position == Position::START {
        return Ok(Restored::Whole);
    }
    let position = checkpoint.position;
    let mut loads = stream::iter(buckets())
        .map(|bucket| load_bucket(store, id, bucket))
        .buffer_unordered(CONCURRENCY);
    loop {
        let rows = tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(Restored::Stopped),
            rows = loads.next() => rows,
        };
        let Some(rows) = rows else { return Ok(Restored::Whole) };
        for row in rows? {
            if !position.includes(row.offset) {
                tracing::error!(
                    partition = %id.partition,
                    offset = %row.offset,
                    %position,
                    "a person's row is ahead of the totals: the store has lost an acknowledged commit",
                );
                return Ok(Restored::AheadOfTotals);
            }
            if !state.restore(&row) {
                return Err(HaltReason::Store(format!(
                    "a person's row at offset {} does not fit the totals of budget `{}` at {position}",
                    row.offset, row.budget
                )));
            }
        }
    }
}

async fn load_bucket(
    store: &dyn Store,
    id: PartitionRef,
    bucket: u8,
) -> Result<Vec<PersonRow>, HaltReason> {
    loop {
        let mut rows = Vec::new();
        match store.read_people(id, bucket, &mut |row| rows.push(row)).await {
            Ok(()) => return Ok(rows),
            Err(StoreError::Corrupt(reason)) => return Err(HaltReason::Store(reason)),
            Err(StoreError::Unavailable(reason)) => {
                tracing::warn!(partition = %id.partition, reason, "people's rows cannot be read yet");
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
    }
}
