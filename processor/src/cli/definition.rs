//! The definition of the budget that a command is about.

use std::sync::Arc;
use std::time::Duration;

use schemas::{Budget, BudgetId};
use storage::control::{ControlTopic, wait_until_loaded};
use tokio::time::timeout;

/// How long to wait for the budget definitions.
const DEFINITIONS_TIMEOUT: Duration = Duration::from_secs(20);

/// Why a command has no definition.
#[derive(Debug, thiserror::Error)]
pub(super) enum DefinitionMissing {
    #[error("the budget definitions could not be read within {} s", DEFINITIONS_TIMEOUT.as_secs())]
    NoDefinitions,
    #[error("there is no budget `{0}`")]
    NoBudget(BudgetId),
}

/// Waits for the definitions and returns that of one budget.
pub(super) async fn definition(
    control: &ControlTopic,
    budget: &BudgetId,
) -> Result<Arc<Budget>, DefinitionMissing> {
    timeout(DEFINITIONS_TIMEOUT, wait_until_loaded(control.active_log.as_ref()))
        .await
        .map_err(|_| DefinitionMissing::NoDefinitions)?;
    let catalog = control.definitions.catalog();
    let found = catalog.get(budget.as_str()).cloned();
    found.ok_or_else(|| DefinitionMissing::NoBudget(budget.clone()))
}
