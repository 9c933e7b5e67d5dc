//! Puts a new roster in the place of the one that it follows.

use async_trait::async_trait;
use schemas::{LogRef, Roster};
use storage::revised::{self, RevisedRow};
use storage::store::{Conditional, Store, StoreError};

use super::Refused;

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

/// The roster's row.
struct RosterRow<'s>(&'s dyn Store);

#[async_trait]
impl RevisedRow for RosterRow<'_> {
    type Value = Roster;

    fn revision(roster: &Roster) -> u64 {
        roster.revision
    }

    async fn read(&self) -> Result<Option<Roster>, StoreError> {
        self.0.roster().await
    }

    async fn write(&self, next: &Roster) -> Result<Conditional, StoreError> {
        self.0.change_roster(next).await
    }
}

/// Takes a step from whatever the roster is now, and answers the roster that it led to.
///
/// # Errors
/// When it cannot be taken, or the store does not answer. Then it may have been taken all the same.
pub async fn change(
    store: &dyn Store,
    step: impl Fn(&Roster) -> Result<Roster, Refused>,
) -> Result<Roster, ChangeError> {
    let step = |now: Option<&Roster>| Ok(step(now.ok_or(ChangeError::NoRoster)?)?);
    revised::change(&RosterRow(store), step).await.map_err(|error| match error {
        revised::ChangeError::Refused(refused) => refused,
        revised::ChangeError::Store(error) => error.into(),
        revised::ChangeError::Unknown => ChangeError::Unknown,
    })
}

/// The roster, which is begun with this log if there is none. All who begin are told of the same one.
///
/// # Errors
/// As the store says.
pub async fn begin_first(store: &dyn Store, log: &LogRef) -> Result<Roster, StoreError> {
    loop {
        if let Some(roster) = store.roster().await? {
            return Ok(roster);
        }
        // A refusal says that somebody else was faster.
        store.change_roster(&Roster::first(log.clone())).await?;
    }
}
