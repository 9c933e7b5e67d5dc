//! Dropping dead letters: a final decision that nothing is to be done. The records stay in the log.

use schemas::RecordAddress;
use storage::log::Decision;
use storage::log::dead_letters::{DeadLetterIndex, DeadLetterState, TrackedDeadLetter};

use super::dead_letter_log::{DeadLetterLog, JournalError};

/// Why a dead letter cannot be dropped. Final.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DropRefused {
    /// There is no such dead letter.
    #[error("there is no such dead letter")]
    Unknown,
    /// It has been replayed.
    #[error("it has been replayed as {0}")]
    Replayed(RecordAddress),
    /// A newer release made a decision that this one does not know.
    #[error("a newer release made a decision about it that this release does not know")]
    Unrecognized,
}

/// Drops dead letters, and returns a result for each. A dead letter with an unfinished replay is dropped too, unless
/// its copy is in the log.
///
/// Dropping twice is the same as once.
///
/// # Errors
/// When the journal or the log is unavailable.
pub async fn drop_dead_letters(
    dead_letters: &DeadLetterLog,
    addresses: &[RecordAddress],
) -> Result<Vec<Result<(), DropRefused>>, JournalError> {
    let journal = dead_letters.journal.as_ref();
    let index = DeadLetterIndex::read_many(journal, addresses).await?;
    for address in addresses {
        let found = index.get(*address);
        if let (Some(tracked), Ok(false)) = (found, is_dropped(found))
            && dead_letters.replayed(*address, tracked).await?.is_none()
        {
            journal.decide(*address, Decision::Dropped).await?;
        }
    }
    // The journal decides which of two concurrent decisions holds.
    let index = DeadLetterIndex::read_many(journal, addresses).await?;
    Ok(addresses.iter().map(|address| is_dropped(index.get(*address)).map(drop)).collect())
}

fn is_dropped(found: Option<&TrackedDeadLetter>) -> Result<bool, DropRefused> {
    match found.ok_or(DropRefused::Unknown)?.state {
        DeadLetterState::Dropped => Ok(true),
        DeadLetterState::Replayed(copy) => Err(DropRefused::Replayed(copy)),
        DeadLetterState::Unrecognized => Err(DropRefused::Unrecognized),
        DeadLetterState::Open | DeadLetterState::Replaying { .. } => Ok(false),
    }
}
