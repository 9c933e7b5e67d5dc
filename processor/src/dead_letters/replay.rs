//! Appending a dead letter's record once more, once.
//!
//! The attempt is entered into the book before the record is appended, with the place from which to look for it, and the
//! new place afterwards. Whoever comes after a crash in between looks whether the record is there, and goes on. Should two
//! come at once after a crash, the record may be there twice: the fold takes the second one for the repetition it is.

use std::sync::Arc;

use schemas::{
    Offset, PartitionId, PersonKey, Position, Receipt, RecordDecoder, RecordView, partition_for,
};
use storage::log::{AppendError, Decision, LetterBook, LogReader, LogWriter, NewRecord, ReadError};
use storage::store::{PartitionRef, Store, StoreError};
use uuid::Uuid;

use super::{Letters, State};

/// What a replay works with.
pub struct ReplayParts {
    /// The book of dead letters.
    pub book: Arc<dyn LetterBook>,
    /// Where the records are.
    pub log: Arc<dyn LogReader>,
    /// Where they are appended once more.
    pub writer: Arc<dyn LogWriter>,
    /// What people have said since.
    pub store: Arc<dyn Store>,
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
    /// It would be a dead letter again.
    #[error("it still cannot be taken: {0}")]
    StillDead(String),
    /// What the person has said since would be undone.
    #[error("the person has submitted since: replaying this would undo it")]
    Superseded,
    /// Somebody else was faster.
    #[error("somebody else is replaying it")]
    Busy,
}

/// Why it is not known to be replayed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// It is not, and will not be.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Try again: what was begun is taken up where it was left.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// As above.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// As above.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The record of a letter, and where it belongs.
struct Dead {
    key: PersonKey,
    value: Vec<u8>,
    home: PartitionId,
}

/// Appends a letter's record once more, unless that has been done. Answers where it stands now.
///
/// # Errors
/// When it is refused, or a place does not answer.
pub async fn replay(parts: &ReplayParts, letter: Receipt) -> Result<Receipt, ReplayError> {
    let state = state(parts, letter).await?;
    let (dead, from) = match state {
        State::Replayed(place) => return Ok(place),
        State::Dropped => return Err(Refusal::Dropped.into()),
        State::Open => {
            let dead = find(parts, letter).await?;
            let from = begin(parts, letter, &dead).await?;
            (dead, from)
        }
        State::Replaying { from, .. } => (find(parts, letter).await?, from),
    };
    let offset = match appended_since(parts, &dead, from).await? {
        Some(offset) => offset,
        None => append(parts, &dead).await?,
    };
    let place = Receipt { partition: dead.home, offset };
    let replayed = Decision::Replayed { partition: place.partition, offset };
    parts.book.decide(letter, replayed).await?;
    Ok(place)
}

async fn state(parts: &ReplayParts, letter: Receipt) -> Result<State, ReplayError> {
    let letters = Letters::read(parts.book.as_ref()).await?;
    Ok(letters.get(letter).ok_or(Refusal::Unknown)?.state)
}

/// The record, if the fold would take it now.
async fn find(parts: &ReplayParts, letter: Receipt) -> Result<Dead, ReplayError> {
    let start = Position(letter.offset.0);
    let mut stretch = parts.log.read(letter.partition, start..letter.offset.next());
    let batch = stretch.recv().await.ok_or(ReadError::Missing(start))??;
    let record = batch.iter().next().ok_or(ReadError::Missing(start))?;
    let mut decoder = RecordDecoder::default();
    let view = decoder
        .decode(record.key, record.value)
        .map_err(|fault| Refusal::StillDead(fault.to_string()))?;
    let key = view.person;
    let home = partition_for(&key, parts.log.partitions());
    refuse_what_is_in_vain(parts, letter, &view, home).await?;
    Ok(Dead { key, value: record.value.to_vec(), home })
}

async fn refuse_what_is_in_vain(
    parts: &ReplayParts,
    letter: Receipt,
    view: &RecordView<'_>,
    home: PartitionId,
) -> Result<(), ReplayError> {
    let Some(current) = parts.store.current_generation().await? else { return Ok(()) };
    let id = PartitionRef { generation: current.generation, partition: home };
    if let Some(row) = parts.store.person(id, &view.person).await? {
        // Offsets of two partitions do not say which came first: what the person says there stays.
        let since = home != letter.partition || row.offset > letter.offset;
        if since {
            return Err(Refusal::Superseded.into());
        }
    }
    let stored = parts.store.read_partition(id).await?;
    let totals = stored.into_iter().flat_map(|stored| stored.totals);
    let expected = totals
        .filter(|(budget, _)| budget.as_str() == view.budget)
        .map(|(_, totals)| totals.categories.len())
        .find(|categories| *categories > 0);
    let found = view.basis_points.len();
    match expected {
        Some(expected) if found > 0 && found != expected => {
            let reason = format!("{found} categories, where the budget has {expected}");
            Err(Refusal::StillDead(reason).into())
        }
        _ => Ok(()),
    }
}

/// Enters the attempt, and makes sure that it is the first one.
async fn begin(parts: &ReplayParts, letter: Receipt, dead: &Dead) -> Result<Position, ReplayError> {
    let from = parts.log.bounds(dead.home).await?.high;
    let attempt = Uuid::new_v4();
    parts.book.decide(letter, Decision::Replay { attempt, partition: dead.home, from }).await?;
    match state(parts, letter).await? {
        State::Replaying { attempt: first, .. } if first == attempt => Ok(from),
        _ => Err(Refusal::Busy.into()),
    }
}

/// Where the record was appended by an attempt that did not come to say so.
async fn appended_since(
    parts: &ReplayParts,
    dead: &Dead,
    from: Position,
) -> Result<Option<Offset>, ReplayError> {
    let high = parts.log.bounds(dead.home).await?.high;
    let mut stretch = parts.log.read(dead.home, from..high);
    while let Some(batch) = stretch.recv().await {
        let batch = batch?;
        let same = batch
            .iter()
            .find(|record| record.key == dead.key.as_bytes() && record.value == dead.value);
        if let Some(record) = same {
            return Ok(Some(record.offset));
        }
    }
    Ok(None)
}

async fn append(parts: &ReplayParts, dead: &Dead) -> Result<Offset, ReplayError> {
    let record = NewRecord { partition: dead.home, key: dead.key, value: dead.value.clone() };
    let answers = parts.writer.append(vec![record]).await;
    let unanswered = || AppendError::Unknown("the log did not answer".to_owned());
    Ok(answers.into_iter().next().ok_or_else(unanswered)??)
}
