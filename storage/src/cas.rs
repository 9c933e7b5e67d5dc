//! Compare-and-set on versioned rows: each write replaces exactly the previous revision. An unknown outcome is settled
//! by reading, and by repeating the same bytes.

use std::time::Duration;

use async_trait::async_trait;

use crate::store::{CasOutcome, StoreError};

const RETRY_DELAY: Duration = Duration::from_millis(200);
/// Retries of one update, after an unavailable store or a lost race.
const MAX_RETRIES: u32 = 50;

/// A row that is replaced as a whole and conditionally.
#[async_trait]
pub trait VersionedRow: Sync {
    /// Content of the row.
    type Value: Clone + PartialEq + Send + Sync;

    /// Returns the revision of a value, which counts the changes from 1.
    fn revision(value: &Self::Value) -> u64;

    /// Reads the row; `None` if it does not exist.
    async fn read(&self) -> Result<Option<Self::Value>, StoreError>;

    /// Replaces the row of the previous revision; revision 1 creates it.
    async fn write(&self, next: &Self::Value) -> Result<CasOutcome, StoreError>;
}

/// Why a row was not updated, or may have been.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UpdateError<R> {
    /// The transition is refused in the current state.
    #[error(transparent)]
    Refused(R),
    /// The store is unavailable or damaged.
    #[error(transparent)]
    Store(StoreError),
    /// The response was lost, and another process has changed the row since.
    #[error(
        "the outcome is unknown: the response was lost, and another process has changed it since: check its state"
    )]
    Unknown,
}

/// Applies a transition to the current value, and returns the resulting value.
///
/// # Errors
/// When the transition is refused, or the store fails. In the latter case it may have been applied.
pub async fn update<Row: VersionedRow, R>(
    row: &Row,
    transition: impl Fn(Option<&Row::Value>) -> Result<Row::Value, R>,
) -> Result<Row::Value, UpdateError<R>> {
    let mut sent: Option<SentWrite<Row::Value>> = None;
    let mut retries = 0;
    loop {
        match attempt(row, &transition, &mut sent).await {
            Ok(Some(value)) => return Ok(value),
            Ok(None) if retries < MAX_RETRIES => {}
            Ok(None) => return Err(UpdateError::Unknown),
            Err(UpdateError::Store(StoreError::Unavailable(_))) if retries < MAX_RETRIES => {
                tokio::time::sleep(RETRY_DELAY).await;
            }
            Err(error) => return Err(error),
        }
        retries += 1;
    }
}

/// The last write that was sent.
struct SentWrite<T> {
    next: T,
    /// A response was lost: the write may still be applied.
    is_unknown: bool,
}

/// Returns the value that was written; `None` if the race was lost.
async fn attempt<Row: VersionedRow, R>(
    row: &Row,
    transition: &impl Fn(Option<&Row::Value>) -> Result<Row::Value, R>,
    sent: &mut Option<SentWrite<Row::Value>>,
) -> Result<Option<Row::Value>, UpdateError<R>> {
    let current = row.read().await.map_err(UpdateError::Store)?;
    let revision = current.as_ref().map_or(0, Row::revision);
    let next = match sent {
        // The sent write was applied, although its response was lost or it lost a race against itself.
        Some(SentWrite { next, .. }) if current.as_ref() == Some(next) => return Ok(current),
        // Nothing has changed: repeat the same bytes, which settles a write in flight.
        Some(SentWrite { next, .. }) if Row::revision(next) == revision + 1 => next.clone(),
        Some(SentWrite { is_unknown: true, .. }) => return Err(UpdateError::Unknown),
        _ => transition(current.as_ref()).map_err(UpdateError::Refused)?,
    };
    let was_unknown = sent.as_ref().is_some_and(|sent| sent.is_unknown && sent.next == next);
    let written = row.write(&next).await;
    let is_unknown = was_unknown || written.is_err();
    *sent = Some(SentWrite { next: next.clone(), is_unknown });
    let is_applied = written.map_err(UpdateError::Store)? == CasOutcome::Applied;
    Ok(is_applied.then_some(next))
}
