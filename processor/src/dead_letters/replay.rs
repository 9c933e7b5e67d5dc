//! Appending a dead letter's record once more, once.
//!
//! The attempt is entered into the book before the record is appended, with the place from which to look for it, and the
//! new place afterwards. Whoever takes an attempt up that ended in between looks whether the record is there, and goes on:
//! the same attempt by itself, anybody else if an operator says that nobody is at it any more. Of a letter that was dropped
//! in between the book says in the end that it was replayed, if it was.
//!
//! A person's newest submission wins, so a letter is not replayed if its person has submitted since. The log says so, not
//! people's rows, which are behind it. Between that look and the append are a few milliseconds in which somebody who
//! submits is overtaken.

use std::collections::HashMap;
use std::sync::Arc;

use schemas::{Position, Receipt, RecordDecoder};
use storage::log::letters::{LetterState, Letters};
use storage::log::{AppendError, Decision, LogWriter, NewRecord, ReadError};
use storage::store::{PartitionRef, Store, StoreError};
use uuid::Uuid;

use super::letter_log::{BookError, Dead, LetterLog};
use crate::again::Away;

/// What a replay works with.
pub struct ReplayParts {
    /// Where the letters are.
    pub at: LetterLog,
    /// Where their records are appended once more: to the same log.
    pub writer: Arc<dyn LogWriter>,
    /// What budgets there are.
    pub store: Arc<dyn Store>,
}

/// Who replays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt {
    /// By this it knows again what it has begun itself.
    pub id: Uuid,
    /// What it does about what somebody else has begun.
    pub unfinished: Unfinished,
}

/// What becomes of a letter that somebody else has begun to replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unfinished {
    /// Somebody may still be at it.
    Leave,
    /// Nobody is any more: it is gone on with.
    Resume,
}

/// Why a letter is not replayed: it would be wrong, or in vain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No such letter.
    #[error("there is no such dead letter")]
    Unknown,
    /// It has been dropped.
    #[error("it has been dropped")]
    Dropped,
    /// The log was created anew.
    #[error("another record stands there now")]
    OtherRecord,
    /// Nobody can say what its person has said since: that is in another log.
    #[error(
        "it is of a log that has been replaced since by another one, where its person may have submitted again"
    )]
    OtherLog,
    /// It would be a dead letter again.
    #[error("it still cannot be taken: {0}")]
    StillDead(String),
    /// What the person has said since would be undone.
    #[error("the person has submitted since, at {0}: replaying this would undo it")]
    Superseded(Receipt),
    /// Somebody else was faster, or ended half way.
    #[error("somebody is replaying it, or was: if nobody is any more, resume it")]
    Busy,
}

/// Why it is not known to be replayed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// It is not, and will not be.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Try again: what was begun can be resumed.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// As above.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// As above.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<BookError> for ReplayError {
    fn from(error: BookError) -> Self {
        match error {
            BookError::Read(error) => error.into(),
            BookError::Append(error) => error.into(),
        }
    }
}

impl Away for ReplayError {
    /// Whoever reads has waited already.
    fn is_away(&self) -> bool {
        matches!(self, Self::Append(_))
    }
}

/// What is to be done for a letter.
pub enum Prepared {
    /// Nothing: its record stands there.
    At(Receipt),
    /// Its record is to be appended.
    Ready(Ready),
}

/// A letter whose record may be appended by the attempt that has begun, now.
pub struct Ready(Dead);

/// Appends a letter's record once more, unless that has been done. Answers where it stands now.
///
/// # Errors
/// When it is refused, or a place does not answer.
pub async fn replay(
    parts: &ReplayParts,
    letter: Receipt,
    attempt: Attempt,
) -> Result<Receipt, ReplayError> {
    match prepare(parts, letter, attempt).await? {
        Prepared::At(place) => Ok(place),
        Prepared::Ready(ready) => append(parts, &ready).await,
    }
}

/// Does everything but append: looks for the record, begins the attempt.
///
/// # Errors
/// When it is refused, or a place does not answer.
pub async fn prepare(
    parts: &ReplayParts,
    letter: Receipt,
    attempt: Attempt,
) -> Result<Prepared, ReplayError> {
    let letters = Letters::read(parts.at.book.as_ref()).await?;
    let found = letters.get(letter).ok_or(Refusal::Unknown)?;
    match found.state {
        LetterState::Replayed(place) => return Ok(Prepared::At(place)),
        LetterState::Dropped if found.begun.is_none() => return Err(Refusal::Dropped.into()),
        LetterState::Replaying { attempt: begun, .. }
            if begun != attempt.id && attempt.unfinished == Unfinished::Leave =>
        {
            return Err(Refusal::Busy.into());
        }
        LetterState::Open | LetterState::Replaying { .. } | LetterState::Dropped => {}
    }
    if letter.log != parts.at.number {
        return Err(Refusal::OtherLog.into());
    }
    if let Some(place) = parts.at.replayed(letter, found).await? {
        return Ok(Prepared::At(place));
    }
    if found.state == LetterState::Dropped {
        return Err(Refusal::Dropped.into());
    }
    let dead = parts.at.find(letter, found).await??;
    refuse_what_is_in_vain(parts, &dead).await?;
    let copies = copies(&letters);
    let looked_until = refuse_what_is_old(parts, &dead, &copies, None).await?;
    if found.state == LetterState::Open {
        begin(parts, &dead, attempt.id).await?;
    }
    refuse_what_is_old(parts, &dead, &copies, Some(looked_until)).await?;
    Ok(Prepared::Ready(Ready(dead)))
}

/// Appends the record, and enters where it stands now.
///
/// # Errors
/// When a place does not answer: it may be done all the same, and the same attempt goes on from there.
pub async fn append(parts: &ReplayParts, Ready(dead): &Ready) -> Result<Receipt, ReplayError> {
    let record = NewRecord { key: dead.key, value: dead.value.clone() };
    let answers = parts.writer.append(vec![record]).await;
    let unanswered = || AppendError::Unknown("the log did not answer".to_owned());
    let place = answers.into_iter().next().ok_or_else(unanswered)??;
    Ok(parts.at.enter(dead, place).await?)
}

/// The fold would put it away once more.
async fn refuse_what_is_in_vain(parts: &ReplayParts, dead: &Dead) -> Result<(), ReplayError> {
    let Some(roster) = parts.store.roster().await? else { return Ok(()) };
    let id = PartitionRef { generation: roster.current.generation, partition: dead.home };
    let stored = parts.store.read_partition(id).await?;
    let totals = stored.into_iter().flat_map(|stored| stored.totals);
    let expected = totals
        .filter(|(budget, _)| budget.as_str() == dead.budget)
        .map(|(_, totals)| totals.categories.len())
        .find(|categories| *categories > 0);
    match (expected, dead.categories) {
        // A withdrawal has none.
        (Some(expected), found @ 1..) if found != expected => {
            let reason = format!("{found} categories, where the budget has {expected}");
            Err(Refusal::StillDead(reason).into())
        }
        _ => Ok(()),
    }
}

/// Records that replays have appended, and the letters that they are copies of.
fn copies(letters: &Letters) -> HashMap<Receipt, Receipt> {
    let replayed = letters.iter().filter_map(|(original, letter)| match letter.state {
        LetterState::Replayed(copy) => Some((copy, original)),
        LetterState::Open | LetterState::Replaying { .. } | LetterState::Dropped => None,
    });
    replayed.collect()
}

/// Refuses a letter whose person has submitted since. Looks from the letter on, or from where it has looked before, and
/// answers until where.
async fn refuse_what_is_old(
    parts: &ReplayParts,
    dead: &Dead,
    copies: &HashMap<Receipt, Receipt>,
    looked_until: Option<Position>,
) -> Result<Position, ReplayError> {
    let same_partition = dead.home == dead.letter.partition;
    let bounds = parts.at.log.bounds(dead.home).await?;
    let first = if same_partition { dead.letter.offset.next() } else { bounds.low };
    let from = looked_until.unwrap_or(first).max(bounds.low);
    let mut decoder = RecordDecoder::default();
    let mut stretch = parts.at.log.read(dead.home, from..bounds.high);
    while let Some(batch) = stretch.recv().await {
        for record in batch?.iter().filter(|record| record.key == dead.key.as_bytes()) {
            let place =
                Receipt { log: parts.at.number, partition: dead.home, offset: record.offset };
            let original = copies.get(&place).unwrap_or(&place);
            let Ok(view) = decoder.decode(record.key, record.value) else { continue };
            // Offsets of two partitions do not say which came first.
            let since = if original.partition == dead.letter.partition {
                original.offset > dead.letter.offset
            } else {
                view.accepted_at_ms >= dead.accepted_at_ms
            };
            if since && record.value != dead.value {
                return Err(Refusal::Superseded(place).into());
            }
        }
    }
    Ok(bounds.high)
}

/// Enters the attempt, and makes sure that it is the first one.
async fn begin(parts: &ReplayParts, dead: &Dead, attempt: Uuid) -> Result<(), ReplayError> {
    let from = parts.at.log.bounds(dead.home).await?.high;
    let decision = Decision::Replay { attempt, partition: dead.home, from };
    parts.at.book.decide(dead.letter, decision).await?;
    let letters = Letters::read(parts.at.book.as_ref()).await?;
    match letters.get(dead.letter).map(|letter| letter.state) {
        Some(LetterState::Replaying { attempt: first, .. }) if first == attempt => Ok(()),
        _ => Err(Refusal::Busy.into()),
    }
}
