//! The budgets that every deployment starts with.
//!
//! They are defined only where no definition was lost: a budget that is defined anew has another salt, so that everyone
//! who is in the log already would be counted again as a new person.

use std::sync::Arc;
use std::time::Duration;

use backon::{ConstantBuilder, Retryable};
use prometheus::IntGauge;
use runtime::metrics::{Metrics, MetricsError};
use runtime::random::random_256_bits;
use schemas::{Budget, PersonSalt, PersonSaltState, default_budgets};
use storage::control::{BudgetDefinitions, ChangeRefused, ControlTopicError, define_if_absent};
use storage::open_error::OpenError;
use tokio_util::sync::CancellationToken;

const RETRY_DELAY: Duration = Duration::from_secs(1);
/// Interval at which definitions that were lost are looked for again, and the loss is logged.
const LOST_POLL_INTERVAL: Duration = Duration::from_secs(60);

/// Whether definitions were lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Definitions {
    /// A definition is known, or the log is empty.
    Complete,
    /// The log has records, and no budget was ever defined.
    Lost,
}

/// Defines the missing default budgets and retries until it succeeds or `stop` is cancelled.
///
/// Existing budgets are not changed, also where this release would define them otherwise: an older process that shares
/// the definition might not understand the change. Deleted ones stay deleted. While definitions are lost, nothing is
/// defined, and a metric says so; `has_records` reads whether a record was ever appended to the log.
///
/// # Errors
/// When a metric name is already registered.
pub fn define_default_budgets<F, R>(
    definitions: Arc<dyn BudgetDefinitions>,
    has_records: F,
    metrics: &Metrics,
    stop: CancellationToken,
) -> Result<impl Future<Output = ()> + Send + use<F, R>, MetricsError>
where
    F: Fn() -> R + Send + Sync,
    R: Future<Output = Result<bool, OpenError>> + Send,
{
    let lost = metrics.gauge(
        "ingest_definitions_lost",
        "1 while the log has records and the control topic has no budget definition: it was lost, or is another topic.",
    )?;
    Ok(async move {
        let defined = define_unless_lost(definitions, has_records, lost);
        stop.run_until_cancelled(defined).await;
    })
}

async fn define_unless_lost<R>(
    definitions: Arc<dyn BudgetDefinitions>,
    has_records: impl Fn() -> R + Send,
    lost: IntGauge,
) where
    R: Future<Output = Result<bool, OpenError>> + Send,
{
    let mut were_lost = false;
    loop {
        match look_for_loss(definitions.as_ref(), &has_records).await {
            Ok(Definitions::Complete) => break,
            Ok(Definitions::Lost) => {
                tracing::error!(
                    "budget definitions are lost: the log has records, and the control topic has no definition. \
                     Restore it, or correct `kafka.definitions_topic`: with a budget that is defined anew, everyone \
                     is counted again as a new person"
                );
                were_lost = true;
                lost.set(1);
                tokio::time::sleep(LOST_POLL_INTERVAL).await;
            }
            Err(reason) => {
                let retry_in_ms = RETRY_DELAY.as_millis() as u64;
                tracing::warn!(%reason, retry_in_ms, "failed to look for lost budget definitions, retrying");
                tokio::time::sleep(RETRY_DELAY).await;
            }
        }
    }
    lost.set(0);
    // After a loss an operator has restored or defined budgets, and decides about the others.
    if !were_lost {
        define_missing(definitions).await;
    }
}

/// Compares the log with the definitions.
///
/// The log is read first: a submission that another process has accepted meanwhile follows a definition. The
/// definitions are read twice: the first read may lack one that was written at the same moment.
async fn look_for_loss<R>(
    definitions: &dyn BudgetDefinitions,
    has_records: &(impl Fn() -> R + Send),
) -> Result<Definitions, String>
where
    R: Future<Output = Result<bool, OpenError>> + Send,
{
    if !definitions.catalog().is_empty() || !has_records().await.map_err(|it| it.to_string())? {
        return Ok(Definitions::Complete);
    }
    for pause in [RETRY_DELAY, Duration::ZERO] {
        let confirmed = definitions.confirmed().await.map_err(|error| error.to_string())?;
        if !confirmed.is_empty() {
            return Ok(Definitions::Complete);
        }
        tokio::time::sleep(pause).await;
    }
    Ok(Definitions::Lost)
}

async fn define_missing(definitions: Arc<dyn BudgetDefinitions>) {
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
        // Never an error: the retries have no limit.
        let _ = defined.await;
    }
}

async fn define(
    definitions: Arc<dyn BudgetDefinitions>,
    mut budget: Budget,
) -> Result<(), ControlTopicError> {
    let catalog = definitions.catalog();
    if catalog.get(budget.id.as_str()).is_some() || catalog.is_deleted(budget.id.as_str()) {
        return Ok(());
    }
    let salt =
        random_256_bits().map_err(|error| ControlTopicError::Unavailable(error.to_string()))?;
    budget.person_salt = PersonSaltState::Salted(PersonSalt::from_bytes(salt));
    match definitions.change(&budget.id, &|current| define_if_absent(current, &budget)).await {
        // It exists, in a form of a newer release.
        Ok(_) | Err(ControlTopicError::Refused(ChangeRefused::NotUnderstood)) => Ok(()),
        Err(error) => Err(error),
    }
}
