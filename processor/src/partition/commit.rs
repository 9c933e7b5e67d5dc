//! The one commit: totals and position together, under this owner's epoch, or not at all.

use std::time::Duration;

use storage::log::DeadLetters;
use storage::store::{Commit, Conditional, PartitionRef, Store, StoreError};

use super::letters::Letters;

const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Why a commit will never happen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum CommitError {
    /// The partition has another owner now: drop the state and join the group again.
    #[error("another owner has claimed the partition")]
    Fenced,
    /// The store has lost a commit that it had acknowledged: drop the state and take the partition over again from
    /// what is stored, which is a shorter prefix of the same log.
    #[error(
        "the store has lost acknowledged commits: it is at {stored}, and this owner had committed {committed}"
    )]
    WentBack {
        /// Where the store is.
        stored: schemas::Position,
        /// What it had acknowledged.
        committed: schemas::Position,
    },
    /// The store holds what this owner did not write: halt.
    #[error("{0}")]
    Corrupt(String),
}

/// Commits what was folded, once the letters of what could not be are put away: a position that moved past a record
/// which is nowhere would have lost it.
pub(super) async fn commit_with_letters(
    store: &dyn Store,
    dead_letters: &dyn DeadLetters,
    partition: PartitionRef,
    commit: &Commit,
    letters: &Letters,
) -> Result<(), CommitError> {
    if let Some((budget, _)) = commit.totals.iter().find(|(_, totals)| !totals.is_consistent()) {
        return Err(CommitError::Corrupt(format!(
            "the folded totals of budget `{budget}` contradict themselves"
        )));
    }
    letters.put_away(dead_letters).await;
    settle_commit(store, partition, commit).await
}

/// Commits, however long the store is away. An outcome that is unknown is settled by reading what is stored, and the
/// same bytes are written again if they are not there: values are absolute, so a repetition changes nothing.
async fn settle_commit(
    store: &dyn Store,
    partition: PartitionRef,
    commit: &Commit,
) -> Result<(), CommitError> {
    let mut pause = FIRST_PAUSE;
    loop {
        match store.commit(partition, commit).await {
            Ok(Conditional::Applied) => return Ok(()),
            Ok(Conditional::Refused) => {}
            Err(StoreError::Corrupt(reason)) => return Err(CommitError::Corrupt(reason)),
            Err(StoreError::Unavailable(reason)) => {
                tracing::warn!(partition = %partition.partition, reason, "a commit's outcome is unknown");
            }
        }
        match settle(store, partition, commit).await? {
            Settled::Done => return Ok(()),
            Settled::NotYet => {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

enum Settled {
    Done,
    NotYet,
}

async fn settle(
    store: &dyn Store,
    partition: PartitionRef,
    commit: &Commit,
) -> Result<Settled, CommitError> {
    let stored = match store.read_partition(partition).await {
        Ok(Some(stored)) => stored,
        Ok(None) => {
            return Err(CommitError::Corrupt(
                "the claimed partition is gone from the store".into(),
            ));
        }
        Err(StoreError::Corrupt(reason)) => return Err(CommitError::Corrupt(reason)),
        Err(StoreError::Unavailable(_)) => return Ok(Settled::NotYet),
    };
    if stored.epoch != commit.epoch {
        return Err(CommitError::Fenced);
    }
    if stored.checkpoint == commit.checkpoint {
        return Ok(Settled::Done);
    }
    if stored.checkpoint.position == commit.from {
        return Ok(Settled::NotYet);
    }
    if stored.checkpoint.position < commit.from {
        return Err(CommitError::WentBack {
            stored: stored.checkpoint.position,
            committed: commit.from,
        });
    }
    Err(CommitError::Corrupt(format!(
        "the stored position {} is neither {} nor {}",
        stored.checkpoint.position, commit.from, commit.checkpoint.position
    )))
}
