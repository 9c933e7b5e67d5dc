//! The operators' list of annulments in the control topic: one document for each budget.

use async_trait::async_trait;
use schemas::{AnnulmentChange, AnnulmentRegister, BudgetId, RegisterFull, StoredAnnulments};

use super::ControlTopicError;

/// The annulments of all budgets.
#[async_trait]
pub trait AnnulmentRegisters: Send + Sync + 'static {
    /// Reads a budget's annulments. A change of another process may take a second to be included.
    ///
    /// # Errors
    /// When the topic is unavailable, or was not read to its end yet.
    async fn annulments(&self, budget: &BudgetId) -> Result<StoredAnnulments, ControlTopicError>;

    /// Changes a budget's annulments, excluding concurrent changes, and returns the resulting ones.
    ///
    /// # Errors
    /// When the document is a newer release's or full, or the topic is unavailable.
    async fn change_annulments(
        &self,
        budget: &BudgetId,
        change: &AnnulmentChange,
    ) -> Result<AnnulmentRegister, AnnulmentChangeError>;
}

/// Why annulments were not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnnulmentChangeError {
    /// This release does not understand the whole document: a change would drop the rest.
    #[error(
        "the list of the budget's annulments is damaged, or a newer release wrote it: use that release"
    )]
    NotUnderstood,
    /// The document would become too large.
    #[error(transparent)]
    Full(#[from] RegisterFull),
    /// The topic is unavailable, or the outcome is unknown: repeat the change.
    #[error("{0}")]
    Unavailable(#[from] ControlTopicError),
}

/// The annulments after a change, and whether they differ from those before.
pub(super) struct ChangedRegister {
    pub register: AnnulmentRegister,
    pub is_changed: bool,
}

/// Decides what a budget's annulments are after a change.
pub(super) fn change(
    current: StoredAnnulments,
    change: &AnnulmentChange,
) -> Result<ChangedRegister, AnnulmentChangeError> {
    let StoredAnnulments::Understood(mut register) = current else {
        return Err(AnnulmentChangeError::NotUnderstood);
    };
    let is_changed = register.apply(change)?;
    Ok(ChangedRegister { register, is_changed })
}
