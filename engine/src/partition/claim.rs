//! Taking a partition over: a conditional write of the next epoch, after which every commit of a former owner fails.

use std::time::Duration;

use backon::{ConstantBuilder, Retryable};
use storage::store::{Checkpoint, Checkpoints, Epoch, PartitionRef, StoreError, StoredPartition};

const CLAIM_RETRY_DELAY: Duration = Duration::from_millis(50);
const READ_RETRY: ConstantBuilder =
    ConstantBuilder::new().with_delay(CLAIM_RETRY_DELAY).without_max_times();

/// Why a partition was not claimed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClaimError {
    /// Another owner claimed the partition at the same time. The claim is repeated after a delay.
    #[error("another owner claimed the partition first")]
    LostClaimRace,
    /// The store holds a state that this software never writes: halt.
    #[error("{0}")]
    Corrupt(String),
}

/// Claims a partition for `owner`, a name that is unique to this process.
///
/// Retries an unavailable store without a limit; the caller bounds the time. Returns the partition as stored under the
/// new epoch.
///
/// # Errors
/// When another owner won the race, or the stored state is corrupt.
pub async fn claim(
    store: &dyn Checkpoints,
    partition: PartitionRef,
    owner: &str,
) -> Result<StoredPartition, ClaimError> {
    let expected = read(store, partition).await?.map(|stored| stored.epoch);
    let next = Epoch(expected.map_or(1, |epoch| epoch.0 + 1));
    loop {
        let outcome = store.claim(partition, expected, next, owner).await;
        if let Err(StoreError::Corrupt(reason)) = outcome {
            return Err(ClaimError::Corrupt(reason));
        }
        // The stored row decides, whatever the response was. After a success it is also the checkpoint to resume from.
        match read(store, partition).await? {
            Some(stored) if stored.epoch == next && stored.owner == owner => {
                return check_consistency(stored);
            }
            stored if stored.as_ref().map(|stored| stored.epoch) != expected => {
                return Err(ClaimError::LostClaimRace);
            }
            // Not applied, or lost again by the store.
            _ => tokio::time::sleep(CLAIM_RETRY_DELAY).await,
        }
    }
}

async fn read(
    store: &dyn Checkpoints,
    partition: PartitionRef,
) -> Result<Option<StoredPartition>, ClaimError> {
    (|| store.read_partition(partition))
        .retry(READ_RETRY)
        .when(|error| matches!(error, StoreError::Unavailable(_)))
        .notify(|error, pause| {
            tracing::warn!(
                partition = %partition.partition,
                %error,
                retry_in_ms = pause.as_millis() as u64,
                "failed to read the partition to claim, retrying",
            );
        })
        .await
        .map_err(|error| match error {
            StoreError::Corrupt(reason) | StoreError::Unavailable(reason) => {
                ClaimError::Corrupt(reason)
            }
        })
}

fn check_consistency(stored: StoredPartition) -> Result<StoredPartition, ClaimError> {
    let Checkpoint { position, rows_position, last_record, .. } = &stored.checkpoint;
    if rows_position > position || last_record.is_some_and(|last| !position.includes(last.offset)) {
        return Err(ClaimError::Corrupt("the checkpoint contradicts itself".into()));
    }
    if let Some((budget, _)) = stored.totals.iter().find(|(_, totals)| !totals.is_consistent()) {
        return Err(ClaimError::Corrupt(format!(
            "the totals of budget `{budget}` contradict themselves"
        )));
    }
    Ok(stored)
}
