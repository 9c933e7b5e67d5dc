//! Forgets the persons of a budget: requires final results, destroys the salt, and erases its copies and the signals.
//!
//! The pure rule is [`control::forget`]. Totals, log and person rows stay as they are: nothing leads to them any more.

use jiff::Timestamp;
use schemas::{Budget, BudgetId, ClosingFence};

use crate::control::{
    self, BudgetDefinitions, ChangeRefused, ControlTopicError, Erasure, forgettable,
};
use crate::log::AppendError;
use crate::signals::{SignalEraser, SignalErasure};
use crate::store::{Store, StoreError};

/// A budget whose persons are forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forgotten {
    /// When.
    pub at: Timestamp,
    /// What became of the former definitions, which contain the salt.
    pub erasure: Erasure,
    /// What became of the signals, which have keys of persons beside digests of where they came from.
    pub signals: SignalErasure,
}

/// Why the persons of a budget are not forgotten, or their salt is not erased.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ForgetError {
    /// The definition does not allow it, or cannot be changed now.
    #[error(transparent)]
    Definition(#[from] ControlTopicError),
    /// Not every partition has counted what was submitted in time.
    #[error("the budget is closed, but not every partition has counted what was accepted in time")]
    NotFinal,
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The persons are forgotten, and copies of the salt are still there.
    #[error("the persons are forgotten, but the former definitions are not erased yet: {0}")]
    NotErased(ControlTopicError),
    /// The persons are forgotten, and signals with their keys are still there.
    #[error(
        "the persons are forgotten, but the signals of their submissions are not erased yet: {0}"
    )]
    SignalsNotErased(AppendError),
}

impl From<ChangeRefused> for ForgetError {
    fn from(refused: ChangeRefused) -> Self {
        Self::Definition(refused.into())
    }
}

/// Forgets the persons of a closed budget with final results. Repeated, it only erases former definitions and signals
/// again.
///
/// # Errors
/// When the budget is not final, has no secret of its own, or a backend is unavailable. Repeating it is safe.
pub async fn forget_persons(
    definitions: &dyn BudgetDefinitions,
    store: &dyn Store,
    signals: &dyn SignalEraser,
    budget: &BudgetId,
    now: Timestamp,
) -> Result<Forgotten, ForgetError> {
    let catalog = definitions.confirmed().await?;
    let current = catalog.changeable(budget.as_str())?;
    let forgotten = match forgettable(current.map(AsRef::as_ref))? {
        None => current.cloned(),
        Some(fence) => {
            if !is_final(store, budget, fence).await? {
                return Err(ForgetError::NotFinal);
            }
            let forget = |current: Option<&Budget>| control::forget(current, fence, now);
            Some(definitions.change(budget, &forget).await?)
        }
    };
    let at = forgotten.and_then(|budget| budget.person_salt.forgotten_at()).unwrap_or(now);
    let erasure =
        definitions.erase_former_definitions(budget).await.map_err(ForgetError::NotErased)?;
    let signals = signals.erase(budget).await.map_err(ForgetError::SignalsNotErased)?;
    Ok(Forgotten { at, erasure, signals })
}

/// Whether each partition of the active generation has folded the close marker of a fence.
async fn is_final(
    store: &dyn Store,
    budget: &BudgetId,
    fence: ClosingFence,
) -> Result<bool, StoreError> {
    let Some(registry) = store.registry().await? else { return Ok(false) };
    let (generation, partitions) = (registry.active.generation, registry.active.log.partitions);
    let budgets = std::slice::from_ref(budget);
    let summaries = store.summaries(generation, partitions, budgets).await?;
    let Some(Ok(summary)) = summaries.into_iter().next() else { return Ok(false) };
    let is_closed =
        |closing: &schemas::Closing| closing.is_closed() && closing.revision() >= fence.revision;
    Ok(summary.len() == partitions.get() as usize
        && summary.iter().flatten().count() == summary.len()
        && summary.iter().flatten().all(|totals| is_closed(&totals.closing)))
}
