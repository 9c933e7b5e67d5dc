//! Budgets' definitions: one ordered history that every service follows, changed by compare-and-set. And in the same
//! history where submissions go: what follows it and has no store has to know that as well.

mod catalog;
pub mod kafka;
pub mod sqlite;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use schemas::{Budget, BudgetId, LogRef};
use tokio::sync::watch;

pub use catalog::{Catalog, Change, ChangeRefused, define, define_if_absent, freeze};

/// Why a definition did not change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DefinitionError {
    /// The rules forbid it.
    #[error(transparent)]
    Refused(#[from] ChangeRefused),
    /// It could not be written now, or nobody says whether it was: look, or ask for the same again.
    #[error("definitions cannot be changed now: {0}")]
    Unavailable(String),
}

/// Between two looks at whether definitions are loaded.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Waits until the definitions are loaded ([`Definitions::is_loaded`]), for as long as it takes.
pub async fn until_loaded(definitions: &dyn Definitions) {
    let mut changes = definitions.changes();
    while !definitions.is_loaded() {
        // Loading them is a change too; its end is ours.
        let _ = tokio::time::timeout(LOOK_AGAIN, changes.changed()).await;
    }
}

/// Where definitions rest.
#[async_trait]
pub trait Definitions: Send + Sync + 'static {
    /// All definitions as last heard. Costs nothing.
    fn catalog(&self) -> Arc<Catalog>;

    /// Whether the catalog has been read to the end of its history once: before that, a budget that is not in it may
    /// well exist.
    fn is_loaded(&self) -> bool;

    /// Wakes whenever the catalog has changed.
    fn changes(&self) -> watch::Receiver<()>;

    /// Where submissions go by now, as last heard; `None` if they never went anywhere else than at first.
    fn log(&self) -> watch::Receiver<Option<LogRef>> {
        watch::channel(None).1
    }

    /// Tells everyone that submissions go to this log from now on. Says nothing if they go there already, or further: it
    /// only moves forward.
    ///
    /// # Errors
    /// When it cannot be told now, or logs are never moved here.
    async fn move_log(&self, _to: &LogRef) -> Result<(), DefinitionError> {
        Err(DefinitionError::Unavailable("this log is never moved".to_owned()))
    }

    /// Asks `decide` what to make of the current definition, with nobody else changing any meanwhile, and writes what
    /// it says. Answers the definition as it is then, which [`Definitions::catalog`] knows from then on.
    ///
    /// # Errors
    /// When `decide` refuses, or the history cannot be written now.
    async fn change(
        &self,
        budget: &BudgetId,
        decide: &Change<'_>,
    ) -> Result<Arc<Budget>, DefinitionError>;
}
