//! The budgets that every deployment starts with.

use std::sync::Arc;
use std::time::Duration;

use backon::{ConstantBuilder, Retryable};
use runtime::random::random_256_bits;
use schemas::{Budget, PersonSalt, PersonSecret, default_budgets};
use storage::control::{BudgetDefinitions, ChangeRefused, DefinitionError, define_if_absent};
use tokio_util::sync::CancellationToken;

const RETRY_DELAY: Duration = Duration::from_secs(1);

/// Defines the missing default budgets and retries until it succeeds or `stop` is cancelled.
///
/// Existing budgets are not changed, also where this release would define them otherwise: an older process that shares
/// the definition might not understand the change. Deleted ones stay deleted.
pub async fn define_default_budgets(
    definitions: Arc<dyn BudgetDefinitions>,
    stop: CancellationToken,
) {
    let budgets = match default_budgets() {
        Ok(budgets) => budgets,
        Err(error) => {
            tracing::error!(%error, "failed to parse the default budgets");
            return;
        }
    };
    for budget in &budgets {
        let defined = (|| define(Arc::clone(&definitions), budget.clone()))
            .retry(ConstantBuilder::new().with_delay(RETRY_DELAY).without_max_times())
            .notify(|error, pause| {
                let retry_in_ms = pause.as_millis() as u64;
                tracing::warn!(%error, budget = %budget.id, retry_in_ms, "failed to define a default budget, retrying");
            });
        // The retries have no limit: only `stop` ends them early.
        if stop.run_until_cancelled(defined).await.is_none() {
            return;
        }
    }
}

async fn define(
    definitions: Arc<dyn BudgetDefinitions>,
    mut budget: Budget,
) -> Result<(), DefinitionError> {
    let catalog = definitions.catalog();
    if catalog.get(budget.id.as_str()).is_some() || catalog.is_deleted(budget.id.as_str()) {
        return Ok(());
    }
    let salt =
        random_256_bits().map_err(|error| DefinitionError::Unavailable(error.to_string()))?;
    budget.person_secret = PersonSecret::Salted(PersonSalt::from_bytes(salt));
    match definitions.change(&budget.id, &|current| define_if_absent(current, &budget)).await {
        // It exists, in a form of a newer release.
        Ok(_) | Err(DefinitionError::Refused(ChangeRefused::NotUnderstood)) => Ok(()),
        Err(error) => Err(error),
    }
}
