//! What operators decide about dead letters, as jobs. A replay is an attempt by the job's id: whoever goes on with the job
//! goes on with the attempt, and appends nothing that is there already.
//!
//! What is refused is in vain until something else changes, a release for example: the job is dead, and can be retried.

use std::sync::Arc;

use schemas::Receipt;
use schemas::job::Verdict;
use storage::log::ReadError;
use storage::log::letters::{LetterState, Letters};

use super::{Done, Failure, Held, KindsParts};
use crate::dead_letters::{
    self, Attempt, DiscardError, Kept, Prepared, ReplayError, ReplayParts, Unfinished,
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

impl From<DiscardError> for Failure {
    fn from(error: DiscardError) -> Self {
        match error {
            DiscardError::Append(error) => Self::Again(error.to_string()),
            DiscardError::Read(error) => error.into(),
        }
    }
}

impl From<Kept> for Failure {
    fn from(kept: Kept) -> Self {
        Self::InVain(kept.to_string())
    }
}

pub(super) async fn replay(
    parts: &KindsParts,
    job: &Held,
    letter: Receipt,
    resume: bool,
) -> Result<Done, Failure> {
    let log = parts.current_log().await?;
    let places = ReplayParts {
        book: Arc::clone(&parts.letters),
        number: log.number,
        log: parts.logs.open(&log).await?,
        writer: Arc::clone(&parts.writer),
        store: Arc::clone(&parts.store),
    };
    let unfinished = if resume { Unfinished::Resume } else { Unfinished::Leave };
    let attempt = Attempt { id: job.id().0, unfinished };
    let place = match dead_letters::prepare(&places, letter, attempt).await? {
        Prepared::At(place) => place,
        Prepared::Ready(ready) => {
            // Who has stood still may have been replaced.
            job.beat().await?;
            dead_letters::append(&places, &ready).await?
        }
    };
    Ok(replayed_as(place))
}

/// Whether its record was appended by now.
pub(super) async fn replayed(parts: &KindsParts, letter: Receipt) -> Result<Option<Done>, Failure> {
    let found = Letters::one(parts.letters.as_ref(), letter).await?;
    Ok(match found.map(|letter| letter.state) {
        Some(LetterState::Replayed(place)) => Some(replayed_as(place)),
        _ => None,
    })
}

fn replayed_as(place: Receipt) -> Done {
    Done { verdict: Verdict::Clean, result: format!("replayed as {place}").into() }
}

pub(super) async fn discard(parts: &KindsParts, letter: Receipt) -> Result<Done, Failure> {
    for dropped in dead_letters::discard(parts.letters.as_ref(), &[letter]).await? {
        dropped?;
    }
    Ok(Done { verdict: Verdict::Clean, result: "dropped".into() })
}
