//! Freezes the rules of a budget whose first records are about to be appended.

use std::sync::Arc;
use std::time::Duration;

use schemas::{Action, Budget};
use storage::control::DefinitionError;
use tokio::time::timeout;

use super::AppendRefused;
use crate::budget_freezer::BudgetFreezer;
use crate::pending::PendingSubmission;

/// Bounds the wait for the control topic. The change goes on without the submissions that wait for it.
pub(super) const FREEZE_TIMEOUT: Duration = Duration::from_secs(10);

/// Whether a submission can only be appended once the definition that it was checked against is frozen. A withdrawal
/// says nothing about categories, and nobody counts before the first allocation.
pub(super) fn needs_frozen(checked: &Budget, pending: &PendingSubmission) -> bool {
    !checked.frozen && matches!(pending.submission.action, Action::Allocate(_))
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
        .unwrap_or_else(|elapsed| Err(DefinitionError::Unavailable(elapsed.to_string())))
        .map_err(AppendRefused::NotFrozen)?;
    let expected =
        Budget { frozen: true, revision: frozen.revision, ..Budget::clone(checked.as_ref()) };
    if *frozen == expected { Ok(()) } else { Err(AppendRefused::DefinitionChanged(frozen)) }
}
