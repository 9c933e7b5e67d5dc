//! Saying of dead letters that there is nothing to do about them. Their records stay where they are.

use schemas::Receipt;
use storage::log::letters::{Letter, LetterState, Letters};
use storage::log::{AppendError, Decision, LetterBook, ReadError};

use crate::again::Away;

/// Why a letter is not dropped, and will not be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Kept {
    /// No such letter.
    #[error("there is no such dead letter")]
    Unknown,
    /// Its record was appended once more.
    #[error("it has been replayed as {0}")]
    Replayed(Receipt),
}

/// Why it is not known which letters are dropped: try again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DiscardError {
    /// The book cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Some may be dropped all the same.
    #[error(transparent)]
    Append(#[from] AppendError),
}

impl Away for DiscardError {
    /// Whoever reads has waited already.
    fn is_away(&self) -> bool {
        matches!(self, Self::Append(_))
    }
}

/// Drops letters, also those that somebody has begun to replay. What has been dropped is dropped. Answers for each of them.
///
/// # Errors
/// When the book does not answer.
pub async fn discard(
    book: &dyn LetterBook,
    places: &[Receipt],
) -> Result<Vec<Result<(), Kept>>, DiscardError> {
    let letters = Letters::some(book, places).await?;
    for place in places {
        if is_dropped(letters.get(*place)) == Ok(false) {
            book.decide(*place, Decision::Dropped).await?;
        }
    }
    // Of two decisions the book says which one holds.
    let letters = Letters::some(book, places).await?;
    Ok(places.iter().map(|place| is_dropped(letters.get(*place)).map(drop)).collect())
}

fn is_dropped(found: Option<&Letter>) -> Result<bool, Kept> {
    match found.ok_or(Kept::Unknown)?.state {
        LetterState::Dropped => Ok(true),
        LetterState::Replayed(copy) => Err(Kept::Replayed(copy)),
        LetterState::Open | LetterState::Replaying { .. } => Ok(false),
    }
}
