//! Appending a dead letter's record again, exactly once.
//!
//! The attempt is recorded in the journal before the record is appended, with the position to search from, and the
//! copy's address afterwards. An attempt that ended in between is resumed by searching for the copy first:
//! automatically for the same attempt id, by an operator's request for another. A dead letter that was dropped in
//! between is still recorded as replayed if its copy is in the log.
//!
//! A person's newest submission wins, so a dead letter is not replayed if its person has submitted since. The log
//! decides that, not the person rows, which lag behind. A submission in the few milliseconds between this check and the
//! append is overtaken by the replay.

use std::collections::HashMap;
use std::sync::Arc;

use schemas::{Position, RecordAddress, RecordDecoder, RecordKind};
use storage::log::dead_letters::{DeadLetterIndex, DeadLetterState};
use storage::log::{AppendError, Decision, LogWriter, NewRecord, ReadError};
use storage::retry::Transient;
use storage::store::{PartitionRef, Store, StoreError};
use uuid::Uuid;

use super::dead_letter_log::{DeadLetterLog, DecodedDeadLetter, JournalError};
use super::replay_refusal::ReplayRefusal;

/// Dependencies of a replay.
pub struct ReplayDeps {
    /// The journal and the log.
    pub dead_letters: DeadLetterLog,
    /// Appends to the active log.
    pub writer: Arc<dyn LogWriter>,
    /// Committed totals, for the number of categories of a budget.
    pub store: Arc<dyn Store>,
}

/// Identity of a replay attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplayAttempt {
    /// The attempt resumes what was begun under the same id.
    pub id: Uuid,
    /// What to do about an unfinished attempt with another id.
    pub unfinished: UnfinishedReplay,
}

/// What to do about another unfinished attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnfinishedReplay {
    /// Leave it: its process may be alive.
    Leave,
    /// Resume it: its process is dead.
    Resume,
}

/// Why a replay failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// It was refused. Final.
    #[error(transparent)]
    Refused(#[from] ReplayRefusal),
    /// The journal cannot be read. Retryable: the attempt can be resumed.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The append failed, or its outcome is unknown. Retryable.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The store cannot be read or written. Retryable.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<JournalError> for ReplayError {
    fn from(error: JournalError) -> Self {
        match error {
            JournalError::Read(error) => error.into(),
            JournalError::Append(error) => error.into(),
        }
    }
}

impl Transient for ReplayError {
    /// Reads are retried below this layer already.
    fn is_transient(&self) -> bool {
        matches!(self, Self::Append(_))
    }
}

/// What remains to be done for a dead letter.
pub enum Prepared {
    /// Nothing: its copy has this address.
    Replayed(RecordAddress),
    /// The record may be appended now.
    Ready(ReadyReplay),
}

/// A dead letter whose record the recorded attempt may append.
pub struct ReadyReplay(DecodedDeadLetter);

/// Appends a dead letter's record again, unless that has been done. Returns the copy's address.
///
/// # Errors
/// When the replay is refused, or a backend is unavailable.
pub async fn replay(
    deps: &ReplayDeps,
    dead_letter: RecordAddress,
    attempt: ReplayAttempt,
) -> Result<RecordAddress, ReplayError> {
    match prepare(deps, dead_letter, attempt).await? {
        Prepared::Replayed(address) => Ok(address),
        Prepared::Ready(ready) => append(deps, &ready).await,
    }
}

/// Does everything except the append: checks, searches for a copy, records the attempt.
///
/// # Errors
/// When the replay is refused, or a backend is unavailable.
pub async fn prepare(
    deps: &ReplayDeps,
    dead_letter: RecordAddress,
    attempt: ReplayAttempt,
) -> Result<Prepared, ReplayError> {
    let index = DeadLetterIndex::read(deps.dead_letters.journal.as_ref()).await?;
    let found = index.get(dead_letter).ok_or(ReplayRefusal::Unknown)?;
    match found.state {
        DeadLetterState::Replayed(address) => return Ok(Prepared::Replayed(address)),
        DeadLetterState::Unrecognized => return Err(ReplayRefusal::Unrecognized.into()),
        DeadLetterState::Dropped if found.replay_from.is_none() => {
            return Err(ReplayRefusal::Dropped.into());
        }
        DeadLetterState::Replaying { attempt: begun, .. }
            if begun != attempt.id && attempt.unfinished == UnfinishedReplay::Leave =>
        {
            return Err(ReplayRefusal::Busy.into());
        }
        DeadLetterState::Open | DeadLetterState::Replaying { .. } | DeadLetterState::Dropped => {}
    }
    if dead_letter.log != deps.dead_letters.number {
        return Err(ReplayRefusal::OtherLog.into());
    }
    if let Some(address) = deps.dead_letters.replayed(dead_letter, found).await? {
        return Ok(Prepared::Replayed(address));
    }
    if found.state == DeadLetterState::Dropped {
        return Err(ReplayRefusal::Dropped.into());
    }
    let dead = deps.dead_letters.find(dead_letter, found).await??;
    refuse_rejected(deps, &dead).await?;
    let copies = copies(&index);
    let searched_until = refuse_superseded(deps, &dead, &copies, None).await?;
    if found.state == DeadLetterState::Open {
        record_attempt(deps, &dead, attempt.id).await?;
    }
    refuse_superseded(deps, &dead, &copies, Some(searched_until)).await?;
    Ok(Prepared::Ready(ReadyReplay(dead)))
}

/// Appends the record and records the copy's address.
///
/// # Errors
/// When a backend is unavailable: the append may have happened, and the same attempt resumes.
pub async fn append(
    deps: &ReplayDeps,
    ReadyReplay(dead): &ReadyReplay,
) -> Result<RecordAddress, ReplayError> {
    let record = NewRecord { key: dead.key, value: dead.value.clone() };
    let outcomes = deps.writer.append(vec![record]).await;
    let no_outcome = || AppendError::Unknown("the log returned no outcome".to_owned());
    let address = outcomes.into_iter().next().ok_or_else(no_outcome)??;
    Ok(deps.dead_letters.record_replay(dead, address).await?)
}

/// Refuses a record that the fold would reject again.
async fn refuse_rejected(deps: &ReplayDeps, dead: &DecodedDeadLetter) -> Result<(), ReplayError> {
    let Some(registry) = deps.store.registry().await? else { return Ok(()) };
    let id =
        PartitionRef { generation: registry.active.generation, partition: dead.home_partition };
    let stored = deps.store.read_partition(id).await?;
    let totals = stored.into_iter().flat_map(|stored| stored.totals);
    let expected = totals
        .filter(|(budget, _)| budget.as_str() == dead.budget)
        .map(|(_, totals)| totals.categories.len())
        .find(|categories| *categories > 0);
    match (expected, dead.categories) {
        // A withdrawal has no categories.
        (Some(expected), found @ 1..) if found != expected => {
            let reason = format!("{found} categories, where the budget has {expected}");
            Err(ReplayRefusal::StillRejected(reason).into())
        }
        _ => Ok(()),
    }
}

/// Maps each replayed copy to its original.
fn copies(index: &DeadLetterIndex) -> HashMap<RecordAddress, RecordAddress> {
    let replayed = index.iter().filter_map(|(original, tracked)| match tracked.state {
        DeadLetterState::Replayed(copy) => Some((copy, original)),
        DeadLetterState::Open
        | DeadLetterState::Replaying { .. }
        | DeadLetterState::Dropped
        | DeadLetterState::Unrecognized => None,
    });
    replayed.collect()
}

/// Refuses a dead letter whose person has submitted since. Searches from the dead letter, or from `searched_until`, and
/// returns the position up to which it has searched.
async fn refuse_superseded(
    deps: &ReplayDeps,
    dead: &DecodedDeadLetter,
    copies: &HashMap<RecordAddress, RecordAddress>,
    searched_until: Option<Position>,
) -> Result<Position, ReplayError> {
    let same_partition = dead.home_partition == dead.source.partition;
    let bounds = deps.dead_letters.log.bounds(dead.home_partition).await?;
    if !same_partition && bounds.low > Position::START {
        // A truncated log cannot tell whether the person has submitted since.
        return Err(ReadError::Missing(Position::START).into());
    }
    let first = if same_partition { dead.source.offset.next() } else { bounds.low };
    let from = searched_until.unwrap_or(first).max(bounds.low);
    let mut decoder = RecordDecoder::default();
    let mut stream = deps.dead_letters.log.read(dead.home_partition, from..bounds.high);
    while let Some(batch) = stream.recv().await {
        for record in batch?.iter().filter(|record| record.key == dead.key.as_bytes()) {
            let address = RecordAddress {
                log: deps.dead_letters.number,
                partition: dead.home_partition,
                offset: record.offset,
            };
            let original = copies.get(&address).unwrap_or(&address);
            let Ok(view) = decoder.decode(record.key, record.value) else { continue };
            if view.kind != RecordKind::Submission {
                continue;
            }
            // Offsets of two partitions do not order their records.
            let is_later = if original.partition == dead.source.partition {
                original.offset > dead.source.offset
            } else {
                view.accepted_at_ms >= dead.accepted_at_ms
            };
            if is_later && record.value != dead.value {
                return Err(ReplayRefusal::Superseded(address).into());
            }
        }
    }
    Ok(bounds.high)
}

/// Records the attempt, and verifies that it is the first one.
async fn record_attempt(
    deps: &ReplayDeps,
    dead: &DecodedDeadLetter,
    attempt: Uuid,
) -> Result<(), ReplayError> {
    let from = deps.dead_letters.log.bounds(dead.home_partition).await?.high;
    let decision = Decision::Replay { attempt, partition: dead.home_partition, from };
    deps.dead_letters.journal.decide(dead.source, decision).await?;
    let index = DeadLetterIndex::read(deps.dead_letters.journal.as_ref()).await?;
    match index.get(dead.source).map(|tracked| tracked.state) {
        Some(DeadLetterState::Replaying { attempt: first, .. }) if first == attempt => Ok(()),
        _ => Err(ReplayRefusal::Busy.into()),
    }
}
