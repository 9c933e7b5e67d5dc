//! Rows that are changed as a whole and conditionally: each change names the revision that it follows. What has no answer
//! is settled here, by reading and by writing the same bytes again.

use std::time::Duration;

use async_trait::async_trait;

use crate::store::{Conditional, StoreError};

const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// How often a store that does not answer is asked again.
const ATTEMPTS: u32 = 50;

/// One such row.
#[async_trait]
pub trait RevisedRow: Sync {
    /// What is in it.
    type Value: Clone + PartialEq + Send + Sync;

    /// Counts its changes, from 1.
    fn revision(value: &Self::Value) -> u64;

    /// What is in it now; `None`: it is not there.
    async fn read(&self) -> Result<Option<Self::Value>, StoreError>;

    /// Puts `next` in the place of what has the revision before; revision 1 in the place of nothing.
    async fn write(&self, next: &Self::Value) -> Result<Conditional, StoreError>;
}

/// Why a row is as it was, or may be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError<R> {
    /// The step cannot be taken from where it is.
    #[error(transparent)]
    Refused(R),
    /// The store does not answer, or holds what cannot be.
    #[error(transparent)]
    Store(StoreError),
    /// It had no answer, and somebody else has changed the row since.
    #[error("whether it was done is not known, as somebody else changed it meanwhile: look at it")]
    Unknown,
}

/// Takes a step from whatever is in the row now, and answers what it led to.
///
/// # Errors
/// When it cannot be taken, or the store does not answer. Then it may have been taken all the same.
pub async fn change<Row: RevisedRow, R>(
    row: &Row,
    step: impl Fn(Option<&Row::Value>) -> Result<Row::Value, R>,
) -> Result<Row::Value, ChangeError<R>> {
    let mut tried: Option<Tried<Row::Value>> = None;
    let mut attempts = 0;
    loop {
        match attempt(row, &step, &mut tried).await {
            Ok(Some(value)) => return Ok(value),
            Ok(None) if attempts < ATTEMPTS => {}
            Ok(None) => return Err(ChangeError::Unknown),
            Err(ChangeError::Store(StoreError::Unavailable(_))) if attempts < ATTEMPTS => {
                tokio::time::sleep(RETRY_PAUSE).await;
            }
            Err(error) => return Err(error),
        }
        attempts += 1;
    }
}

/// A change that was sent.
struct Tried<T> {
    next: T,
    /// Whether no answer came: it may happen yet.
    unknown: bool,
}

/// What was made; `None`: look again.
async fn attempt<Row: RevisedRow, R>(
    row: &Row,
    step: &impl Fn(Option<&Row::Value>) -> Result<Row::Value, R>,
    tried: &mut Option<Tried<Row::Value>>,
) -> Result<Option<Row::Value>, ChangeError<R>> {
    let now = row.read().await.map_err(ChangeError::Store)?;
    let revision = now.as_ref().map_or(0, Row::revision);
    let next = match tried {
        // What had no answer, or was refused in favour of itself, has come to be.
        Some(Tried { next, .. }) if now.as_ref() == Some(next) => return Ok(now),
        // Nothing has happened yet: the same bytes again, which settle what is on its way.
        Some(Tried { next, .. }) if Row::revision(next) == revision + 1 => next.clone(),
        Some(Tried { unknown: true, .. }) => return Err(ChangeError::Unknown),
        _ => step(now.as_ref()).map_err(ChangeError::Refused)?,
    };
    let unknown = tried.as_ref().is_some_and(|tried| tried.unknown && tried.next == next);
    let changed = row.write(&next).await;
    let unknown = unknown || changed.is_err();
    *tried = Some(Tried { next: next.clone(), unknown });
    let applied = changed.map_err(ChangeError::Store)? == Conditional::Applied;
    Ok(applied.then_some(next))
}
