//! One commit: totals and position together under this owner's epoch, or not at all.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use schemas::Position;
use storage::log::DeadLetterWriter;
use storage::store::{CasOutcome, Commit, PartitionRef, Store, StoreError, StoredPartition};

use super::dead_letter_buffer::DeadLetterBuffer;

const MAX_RETRY_DELAY: Duration = Duration::from_secs(1);
const COMMIT_BACKOFF: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_millis(20))
    .with_max_delay(MAX_RETRY_DELAY)
    .without_max_times();

/// Why a commit will never be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum CommitError {
    /// Another owner has claimed the partition: drop the state and claim it again, if it still is assigned.
    #[error("another owner has claimed the partition")]
    Fenced,
    /// The generation was retired, and the partition of it is deleted: drop the state.
    #[error("the generation was retired")]
    Retired,
    /// The store lost a commit that it had acknowledged: drop the state and take the partition over again from what is
    /// stored, which is a shorter prefix of the same log.
    #[error(
        "the store lost acknowledged commits: it is at {stored}, and this owner had committed {committed}"
    )]
    CommitsLost {
        /// The stored position.
        stored: Position,
        /// The position that the store had acknowledged.
        committed: Position,
    },
    /// The store holds a state that this owner did not write: halt.
    #[error("{0}")]
    Corrupt(String),
}

/// Appends the buffered dead letters, then commits.
///
/// In this order: a position that passed a rejected record before its dead letter was stored would lose the record.
pub(super) async fn commit_with_dead_letters(
    store: &dyn Store,
    writer: &dyn DeadLetterWriter,
    partition: PartitionRef,
    commit: &Commit,
    dead_letters: &DeadLetterBuffer,
) -> Result<(), CommitError> {
    if let Some((budget, _)) = commit.totals.iter().find(|(_, totals)| !totals.is_consistent()) {
        return Err(CommitError::Corrupt(format!(
            "the folded totals of budget `{budget}` contradict themselves"
        )));
    }
    dead_letters.append_all(writer).await;
    commit_until_settled(store, partition, commit).await
}

/// Repeats a commit until its outcome is certain, without an attempt limit.
///
/// An unknown outcome is settled by reading the stored partition. The same bytes are written again if they are not
/// stored: values are absolute, so a repetition changes nothing.
async fn commit_until_settled(
    store: &dyn Store,
    partition: PartitionRef,
    commit: &Commit,
) -> Result<(), CommitError> {
    let mut backoff = COMMIT_BACKOFF.build();
    loop {
        match store.commit(partition, commit).await {
            Ok(CasOutcome::Applied) => return Ok(()),
            Ok(CasOutcome::Refused) => {}
            Err(StoreError::Corrupt(reason)) => return Err(CommitError::Corrupt(reason)),
            Err(StoreError::Unavailable(reason)) => {
                tracing::warn!(partition = %partition.partition, error = reason, "commit outcome unknown, reading the store");
            }
        }
        match read(store, partition).await {
            Ok(stored) => match settle(&stored, commit)? {
                Settled::Applied => return Ok(()),
                Settled::NotApplied => {}
            },
            Err(StoreError::Corrupt(reason)) => return Err(CommitError::Corrupt(reason)),
            Err(StoreError::Unavailable(_)) => {}
        }
        tokio::time::sleep(backoff.next().unwrap_or(MAX_RETRY_DELAY)).await;
    }
}

/// What the store has of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Read {
    Partition(Box<StoredPartition>),
    /// The partition was retired with its generation.
    Retired,
    Nothing,
}

/// Reads a partition, and tells one that was retired from one that is lost.
async fn read(store: &dyn Store, partition: PartitionRef) -> Result<Read, StoreError> {
    if let Some(stored) = store.read_partition(partition).await? {
        return Ok(Read::Partition(Box::new(stored)));
    }
    let known = store.known_partitions().await?;
    let is_retired = known.iter().any(|known| known.id == partition && known.is_retired);
    Ok(if is_retired { Read::Retired } else { Read::Nothing })
}

/// Whether a commit that can still be applied has been.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Settled {
    Applied,
    NotApplied,
}

/// Decides from the stored partition what became of a commit. Pure.
fn settle(stored: &Read, commit: &Commit) -> Result<Settled, CommitError> {
    let stored = match stored {
        Read::Partition(stored) => stored,
        Read::Retired => return Err(CommitError::Retired),
        Read::Nothing => {
            let (stored, committed) = (Position::START, commit.from);
            return Err(CommitError::CommitsLost { stored, committed });
        }
    };
    if stored.epoch != commit.epoch {
        return Err(CommitError::Fenced);
    }
    if stored.checkpoint == commit.checkpoint {
        return Ok(Settled::Applied);
    }
    let position = stored.checkpoint.position;
    if position == commit.from {
        return Ok(Settled::NotApplied);
    }
    if position < commit.from {
        return Err(CommitError::CommitsLost { stored: position, committed: commit.from });
    }
    // The store had lost the later claims, and another owner was given the same epoch. Who claims next is the only owner
    // again, and checks what is stored.
    Err(CommitError::Fenced)
}

#[cfg(test)]
mod tests {
    use storage::store::{Checkpoint, Epoch};

    use super::*;

    fn checkpoint(position: u64) -> Checkpoint {
        Checkpoint { position: Position(position), ..Checkpoint::START }
    }

    fn stored(epoch: u64, position: u64) -> Read {
        Read::Partition(Box::new(StoredPartition {
            epoch: Epoch(epoch),
            owner: "owner".into(),
            checkpoint: checkpoint(position),
            totals: Vec::new(),
        }))
    }

    /// The outcome of a commit from position 5 to 9 under epoch 2.
    fn settled(stored: &Read) -> Result<Settled, CommitError> {
        let (from, checkpoint) = (Position(5), checkpoint(9));
        settle(stored, &Commit { epoch: Epoch(2), from, checkpoint, totals: Vec::new() })
    }

    #[test]
    fn the_stored_position_decides_whether_a_commit_was_applied() {
        assert_eq!(settled(&stored(2, 9)), Ok(Settled::Applied));
        assert_eq!(settled(&stored(2, 5)), Ok(Settled::NotApplied));
    }

    #[test]
    fn another_epoch_fences_the_owner_even_if_the_checkpoint_is_the_same() {
        for position in [3, 5, 9, 12] {
            assert_eq!(settled(&stored(3, position)), Err(CommitError::Fenced));
        }
    }

    #[test]
    fn a_stored_position_before_the_commit_means_that_acknowledged_commits_are_lost() {
        let lost = CommitError::CommitsLost { stored: Position(4), committed: Position(5) };
        assert_eq!(settled(&stored(2, 4)), Err(lost));
    }

    #[test]
    fn a_missing_partition_means_that_all_commits_are_lost() {
        let (stored, committed) = (Position::START, Position(5));
        assert_eq!(settled(&Read::Nothing), Err(CommitError::CommitsLost { stored, committed }));
    }

    #[test]
    fn a_retired_partition_means_no_loss() {
        assert_eq!(settled(&Read::Retired), Err(CommitError::Retired));
    }

    #[test]
    fn a_later_position_under_the_same_epoch_is_that_of_another_owner() {
        for position in [7, 10] {
            assert_eq!(settled(&stored(2, position)), Err(CommitError::Fenced));
        }
    }
}
