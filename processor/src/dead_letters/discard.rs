//! Saying of dead letters that there is nothing to do about them. Their records stay where they are.

use schemas::Receipt;
use storage::log::Decision;
use storage::log::letters::{Letter, LetterState, Letters};

use super::letter_log::{BookError, LetterLog};

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

/// Drops letters, also those that somebody has begun to replay, unless the record stands there by now. What has been dropped
/// is dropped. Answers for each of them.
///
/// # Errors
/// When the book or the log does not answer.
pub async fn discard(
    at: &LetterLog,
    places: &[Receipt],
) -> Result<Vec<Result<(), Kept>>, BookError> {
    let book = at.book.as_ref();
    let letters = Letters::some(book, places).await?;
    for place in places {
        let found = letters.get(*place);
        if let (Some(letter), Ok(false)) = (found, is_dropped(found))
            && at.replayed(*place, letter).await?.is_none()
        {
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
