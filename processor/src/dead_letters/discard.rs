//! Saying of a dead letter that there is nothing to do about it. Its record stays where it is.

use schemas::Receipt;
use storage::log::letters::{Letter, LetterState, Letters};
use storage::log::{AppendError, Decision, LetterBook, ReadError};

/// Why a letter is not known to be dropped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DiscardError {
    /// No such letter.
    #[error("there is no such dead letter")]
    Unknown,
    /// Its record was appended once more.
    #[error("it has been replayed as {0}")]
    Replayed(Receipt),
    /// Try again.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Try again: it may be dropped all the same.
    #[error(transparent)]
    Append(#[from] AppendError),
}

/// Drops a letter, also one that somebody has begun to replay. What has been dropped is dropped.
///
/// # Errors
/// When there is none, it has been replayed, or the book does not answer.
pub async fn discard(book: &dyn LetterBook, place: Receipt) -> Result<(), DiscardError> {
    if decided(Letters::one(book, place).await?)? {
        return Ok(());
    }
    book.decide(place, Decision::Dropped).await?;
    // Of two decisions the book says which one holds.
    decided(Letters::one(book, place).await?).map(drop)
}

/// Whether it has been dropped.
fn decided(found: Option<Letter>) -> Result<bool, DiscardError> {
    match found.ok_or(DiscardError::Unknown)?.state {
        LetterState::Dropped => Ok(true),
        LetterState::Replayed(copy) => Err(DiscardError::Replayed(copy)),
        LetterState::Open | LetterState::Replaying { .. } => Ok(false),
    }
}
