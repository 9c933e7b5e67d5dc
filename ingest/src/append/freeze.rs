//! Makes sure that the definition which submissions were checked against is in force when they are appended.
//!
//! A frozen definition is. A definition that is not frozen may have changed: the first allocation freezes it, and no other;
//! a withdrawal freezes nothing, and is appended once the control topic says that the definition is still in force.

use std::sync::Arc;
use std::time::Duration;

use schemas::{Action, Budget};
use storage::control::{BudgetDefinitions, ChangeRefused, ControlTopicError};
use tokio::time::timeout;

use super::AppendRefused;
use crate::budget_freezer::BudgetFreezer;
use crate::pending::PendingSubmission;

/// Bounds the wait for the control topic. The change goes on without the submissions that wait for it.
pub(super) const FREEZE_TIMEOUT: Duration = Duration::from_secs(10);

/// Whether a submission freezes the definition of its budget. A withdrawal says nothing about categories, and nobody counts
/// before the first allocation.
pub(super) fn freezes(pending: &PendingSubmission) -> bool {
    matches!(pending.submission.action, Action::Allocate(_))
}

/// Freezes a definition that submissions were checked against.
///
/// # Errors
/// When another definition is in force, frozen or not, or the topic is unavailable.
pub(super) async fn freeze(
    freezer: &BudgetFreezer,
    checked: &Arc<Budget>,
) -> Result<(), AppendRefused> {
    let frozen = timeout(FREEZE_TIMEOUT, freezer.freeze(checked))
        .await
        .unwrap_or_else(|elapsed| Err(ControlTopicError::Unavailable(elapsed.to_string())))
        .map_err(AppendRefused::NotFrozen)?;
    if frozen.frozen && is_same(&frozen, checked) {
        Ok(())
    } else {
        Err(AppendRefused::DefinitionChanged(frozen))
    }
}

/// Reads the control topic to its end: a definition that submissions were checked against must still be in force.
///
/// # Errors
/// When another definition is in force, or the topic is unavailable.
pub(super) async fn require_in_force(
    definitions: &dyn BudgetDefinitions,
    checked: &Budget,
) -> Result<(), AppendRefused> {
    let catalog = timeout(FREEZE_TIMEOUT, definitions.confirmed())
        .await
        .unwrap_or_else(|elapsed| Err(ControlTopicError::Unavailable(elapsed.to_string())))
        .map_err(AppendRefused::NotConfirmed)?;
    match catalog.get(checked.id.as_str()) {
        Some(current) if is_same(current, checked) => Ok(()),
        Some(current) => Err(AppendRefused::DefinitionChanged(Arc::clone(current))),
        None => Err(AppendRefused::NotConfirmed(ChangeRefused::Unknown.into())),
    }
}

/// Whether two definitions are the same but for being frozen.
fn is_same(current: &Budget, checked: &Budget) -> bool {
    let expected = Budget { frozen: current.frozen, revision: current.revision, ..checked.clone() };
    *current == expected
}
