//! Reads the generation registry at startup, or creates it.

use std::time::Duration;

use backon::{ConstantBuilder, Retryable};
use generations::registry::{check_configured_log, check_known_partitions, load_or_create};
use schemas::{GenerationRegistry, LogRef};
use storage::control::{ActiveLog, wait_until_loaded};
use storage::store::{Store, StoreError};

use crate::start_error::StartError;

const STORE_RETRY_DELAY: Duration = Duration::from_millis(500);
/// Interval of the log line about a control topic that is not loaded yet.
const LOADING_LOG_INTERVAL: Duration = Duration::from_secs(5);

/// Returns the registry, checked against the configured log. Creates it if it does not exist.
///
/// Waits for an unavailable store, and for a control topic that is not loaded yet.
///
/// # Errors
/// When the deployment began with a log other than the configured one, another version of the fold derived its totals,
/// or the registry is damaged, lost, or older than the rest of the store.
pub async fn first_registry(
    store: &dyn Store,
    active_log: &dyn ActiveLog,
    first_log: &LogRef,
) -> Result<GenerationRegistry, StartError> {
    let registry = (|| load_registry(store, active_log, first_log))
        .retry(ConstantBuilder::new().with_delay(STORE_RETRY_DELAY).without_max_times())
        .when(|error| matches!(error, StoreError::Unavailable(_)))
        .notify(|error, pause| {
            tracing::warn!(
                %error,
                retry_in_ms = pause.as_millis() as u64,
                "failed to read the generation registry, retrying",
            );
        })
        .await
        .map_err(|error| match error {
            StoreError::Corrupt(reason) | StoreError::Unavailable(reason) => {
                StartError::Store(reason)
            }
        })?;
    check_configured_log(&registry.active, first_log).map_err(StartError::LogMismatch)?;
    registry.check_fold_version().map_err(StartError::FoldVersion)?;
    Ok(registry)
}

/// Reads the registry, or creates one for the log to which submissions go now.
///
/// That need not be the first log: if the store was lost after a repartition, no submissions go to
/// the first log any more.
async fn load_registry(
    store: &dyn Store,
    active_log: &dyn ActiveLog,
    first_log: &LogRef,
) -> Result<GenerationRegistry, StoreError> {
    if let Some(registry) = store.registry().await.map_err(unreadable)? {
        return check_known_partitions(store, registry).await;
    }
    let loaded = || tokio::time::timeout(LOADING_LOG_INTERVAL, wait_until_loaded(active_log));
    while loaded().await.is_err() {
        tracing::warn!("no generation yet, waiting for the control topic to name the active log");
    }
    let announced = active_log.subscribe().borrow().clone();
    if let Some(log) = &announced {
        tracing::warn!(
            topic = log.topic,
            "no generation yet, folding the active log from its first record",
        );
    }
    load_or_create(store, announced.as_ref().unwrap_or(first_log)).await
}

fn unreadable(error: StoreError) -> StoreError {
    match error {
        StoreError::Corrupt(reason) => {
            StoreError::Corrupt(format!("{reason}, or in a mode that only a newer release knows"))
        }
        unavailable @ StoreError::Unavailable(_) => unavailable,
    }
}
