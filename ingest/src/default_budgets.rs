//! The budgets that a deployment starts with.

use std::sync::Arc;
use std::time::Duration;

use schemas::{Budget, default_budgets};
use storage::definitions::{DefinitionError, Definitions, define_if_absent};
use tokio_util::sync::CancellationToken;

const RETRY_EVERY: Duration = Duration::from_secs(1);

/// Defines the default budgets that are not defined yet; tries until they are, or until it is told to stop. Budgets
/// that exist stay as they are.
pub async fn define_default_budgets(definitions: Arc<dyn Definitions>, stop: CancellationToken) {
    let budgets = match default_budgets() {
        Ok(budgets) => budgets,
        Err(error) => {
            tracing::error!(%error, "the default budgets do not parse");
            return;
        }
    };
    for budget in &budgets {
        while let Err(error) = define(&*definitions, budget).await {
            tracing::warn!(%error, budget = %budget.id, "a default budget is not defined yet");
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(RETRY_EVERY) => {}
            }
        }
    }
}

async fn define(definitions: &dyn Definitions, budget: &Budget) -> Result<(), DefinitionError> {
    if definitions.catalog().get(budget.id.as_str()).is_some() {
        return Ok(());
    }
    definitions.change(&budget.id, &|current| define_if_absent(current, budget)).await.map(|_| ())
}
