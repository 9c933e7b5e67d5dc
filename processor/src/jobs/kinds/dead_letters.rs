//! What operators decide about dead letters, as jobs. A replay is an attempt by the job's id: whoever goes on with the job
//! goes on with the attempt, and appends nothing that is there already.
//!
//! What is refused is in vain until something else changes, a release for example: the job is dead, and can be retried.

use std::sync::Arc;

use schemas::Receipt;
use schemas::job::Verdict;
use storage::log::ReadError;
use storage::log::letters::Letters;

use super::{Done, Failure, Held, KindsParts};
use crate::dead_letters::{
    self, Attempt, BookError, Kept, LetterLog, Prepared, ReplayError, ReplayParts, Unfinished,
};

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Unavailable(_) => Self::Again(error.to_string()),
            ReadError::Missing(_) | ReadError::Damaged(_) => Self::InVain(error.to_string()),
        }
    }
}

impl From<ReplayError> for Failure {
    fn from(error: ReplayError) -> Self {
        match error {
            ReplayError::Refused(refusal) => Self::InVain(refusal.to_string()),
            ReplayError::Append(error) => Self::Again(error.to_string()),
            ReplayError::Read(error) => error.into(),
            ReplayError::Store(error) => error.into(),
        }
    }
}

impl From<BookError> for Failure {
    fn from(error: BookError) -> Self {
        match error {
            BookError::Append(error) => Self::Again(error.to_string()),
            BookError::Read(error) => error.into(),
        }
    }
}

impl From<Kept> for Failure {
    fn from(kept: Kept) -> Self {
        Self::InVain(kept.to_string())
    }
}

async fn letter_log(parts: &KindsParts) -> Result<LetterLog, Failure> {
    let log = parts.current_log().await?;
    let book = Arc::clone(&parts.letters);
    Ok(LetterLog { book, number: log.number, log: parts.logs.open(&log).await? })
}

pub(super) async fn replay(
    parts: &KindsParts,
    job: &Held,
    letter: Receipt,
    resume: bool,
) -> Result<Done, Failure> {
    let places = Arc::new(ReplayParts {
        at: letter_log(parts).await?,
        writer: Arc::clone(&parts.writer),
        store: Arc::clone(&parts.store),
    });
    let unfinished = if resume { Unfinished::Resume } else { Unfinished::Leave };
    let attempt = Attempt { id: job.id().0, unfinished };
    // Whoever calls it off from here on has it looked whether the record was appended.
    job.save(&attempt.id).await?;
    let place = match dead_letters::prepare(&places, letter, attempt).await? {
        Prepared::At(place) => place,
        Prepared::Ready(ready) => {
            // Who has stood still may have been replaced.
            job.beat_unless_cancelling().await?;
            // What has gone out is entered into the book, whoever waits for it.
            let appending =
                tokio::spawn(async move { dead_letters::append(&places, &ready).await });
            appending.await.map_err(|error| Failure::Again(error.to_string()))??
        }
    };
    Ok(replayed_as(place))
}

/// Whether its record was appended by now.
pub(super) async fn replayed(parts: &KindsParts, letter: Receipt) -> Result<Option<Done>, Failure> {
    let at = letter_log(parts).await?;
    let Some(found) = Letters::one(at.book.as_ref(), letter).await? else { return Ok(None) };
    Ok(at.replayed(letter, &found).await?.map(replayed_as))
}

fn replayed_as(place: Receipt) -> Done {
    Done { verdict: Verdict::Clean, result: format!("replayed as {place}").into() }
}

pub(super) async fn discard(parts: &KindsParts, letter: Receipt) -> Result<Done, Failure> {
    for dropped in dead_letters::discard(&letter_log(parts).await?, &[letter]).await? {
        dropped?;
    }
    Ok(Done { verdict: Verdict::Clean, result: "dropped".into() })
}
