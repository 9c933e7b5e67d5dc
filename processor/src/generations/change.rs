//! Puts a new roster in the place of the one that it follows.

use std::time::Duration;

use schemas::{PartitionCount, Roster};
use storage::store::{Conditional, Store, StoreError};

use super::Refused;

const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// How often a store that does not answer is asked again.
const ATTEMPTS: u32 = 50;

/// Why the roster is as it was, or may be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// The step cannot be taken from where it is.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The store does not answer, or holds what cannot be.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It had no answer, and somebody else has changed the roster since.
    #[error(
        "whether it was done is not known, as somebody else changed the roster meanwhile: see `generations list`"
    )]
    Unknown,
    /// No processor ever began.
    #[error("there is no generation yet: no processor ever started")]
    NoRoster,
}

/// Takes a step from whatever the roster is now, and answers the roster that it led to.
///
/// # Errors
/// When it cannot be taken, or the store does not answer. Then it may have been taken all the same.
pub async fn change(
    store: &dyn Store,
    step: impl Fn(&Roster) -> Result<Roster, Refused>,
) -> Result<Roster, ChangeError> {
    let mut tried: Option<Tried> = None;
    let mut attempts = 0;
    loop {
        match attempt(store, &step, &mut tried).await {
            Ok(Some(roster)) => return Ok(roster),
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
struct Tried {
    next: Roster,
    /// Whether no answer came: it may happen yet.
    unknown: bool,
}

/// The roster that was made; `None`: look again.
async fn attempt(
    store: &dyn Store,
    step: &impl Fn(&Roster) -> Result<Roster, Refused>,
    tried: &mut Option<Tried>,
) -> Result<Option<Roster>, ChangeError> {
    let now = store.roster().await?.ok_or(ChangeError::NoRoster)?;
    let next = match tried {
        // What had no answer, or was refused in favour of itself, has come to be.
        Some(Tried { next, .. }) if *next == now => return Ok(Some(now)),
        // Nothing has happened yet: the same bytes again, which settle what is on its way.
        Some(Tried { next, .. }) if next.revision == now.revision + 1 => next.clone(),
        Some(Tried { unknown: true, .. }) => return Err(ChangeError::Unknown),
        _ => step(&now)?,
    };
    let unknown = tried.as_ref().is_some_and(|tried| tried.unknown && tried.next == next);
    let changed = store.change_roster(&next).await;
    let unknown = unknown || changed.is_err();
    *tried = Some(Tried { next: next.clone(), unknown });
    Ok((changed? == Conditional::Applied).then_some(next))
}

/// The roster, which is begun if there is none. All who begin are told of the same one.
///
/// # Errors
/// As the store says.
pub async fn begin_first(
    store: &dyn Store,
    topic: &str,
    partitions: PartitionCount,
) -> Result<Roster, StoreError> {
    loop {
        if let Some(roster) = store.roster().await? {
            return Ok(roster);
        }
        // A refusal says that somebody else was faster.
        store.change_roster(&Roster::first(topic, partitions)).await?;
    }
}
