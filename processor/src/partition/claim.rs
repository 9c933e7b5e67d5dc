//! Taking a partition over: the next epoch, conditionally, so that a former owner's commits fail from then on.

use std::time::Duration;

use storage::store::{
    Checkpoint, Conditional, Epoch, PartitionRef, Store, StoreError, StoredPartition,
};

const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// Why a partition was not claimed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClaimError {
    /// Somebody else claimed it meanwhile: join the group again.
    #[error("another owner claimed the partition first")]
    Outrun,
    /// What the store holds cannot be: halt.
    #[error("{0}")]
    Corrupt(String),
}

/// Claims a partition for `owner`, a name that no other process ever has. Waits for the store as long as it takes:
/// the caller bounds it. Answers the partition as it is under the new epoch.
///
/// # Errors
/// When another owner was faster, or the store holds what cannot be.
pub async fn claim(
    store: &dyn Store,
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
        // Whatever was answered, what is stored now decides; after a success it is also the checkpoint to go on from.
        match read(store, partition).await? {
            Some(stored) if stored.epoch == next && stored.owner == owner => {
                return sane(stored);
            }
            stored if stored.as_ref().map(|stored| stored.epoch) != expected => {
                return Err(ClaimError::Outrun);
            }
            _ if matches!(outcome, Ok(Conditional::Applied)) => {
                return Err(ClaimError::Corrupt("a claim that was applied is not there".into()));
            }
            _ => tokio::time::sleep(RETRY_PAUSE).await,
        }
    }
}

async fn read(
    store: &dyn Store,
    partition: PartitionRef,
) -> Result<Option<StoredPartition>, ClaimError> {
    loop {
        match store.read_partition(partition).await {
            Ok(stored) => return Ok(stored),
            Err(StoreError::Corrupt(reason)) => return Err(ClaimError::Corrupt(reason)),
            Err(StoreError::Unavailable(reason)) => {
                tracing::warn!(partition = %partition.partition, reason, "the store does not answer a claim yet");
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
    }
}

fn sane(stored: StoredPartition) -> Result<StoredPartition, ClaimError> {
    let Checkpoint { position, state_position, last_record, .. } = &stored.checkpoint;
    if state_position > position || last_record.is_some_and(|mark| !position.includes(mark.offset))
    {
        return Err(ClaimError::Corrupt("the checkpoint contradicts itself".into()));
    }
    if let Some((budget, _)) = stored.totals.iter().find(|(_, totals)| !totals.is_consistent()) {
        return Err(ClaimError::Corrupt(format!(
            "the totals of budget `{budget}` contradict themselves"
        )));
    }
    Ok(stored)
}
