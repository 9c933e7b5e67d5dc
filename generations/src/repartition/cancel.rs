//! Cancels a repartition: the generation on the new log never becomes active, and the old topic
//! accepts submissions again.
//!
//! Every step is recorded in the registry before it is applied, so that any process can continue.

use std::time::Duration;

use backon::{ConstantBuilder, Retryable};
use schemas::{Building, Generation, GenerationRegistry, LogRef, Seal};
use storage::log::kafka::TopicMigrator;
use storage::store::Store;
use tokio::time::{Instant, sleep};

use super::deps::RepartitionDeps;
use super::error::RepartitionError;
use crate::registry::{
    RegistryUpdateError, cancel_on_new_log, delete_retired, unseal, update_registry,
};

/// Longest time for which unsealing is retried. Submissions are rejected meanwhile.
const UNSEAL_TIMEOUT: Duration = Duration::from_secs(60);
const RETRY_DELAY: Duration = Duration::from_millis(500);

/// The outcome of [`cancel`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CancelOutcome {
    /// The generation was cancelled; submissions go to the given topic.
    Cancelled(Generation, String),
    /// The generation became active before it could be cancelled.
    AlreadyActive(Generation),
    /// No repartition was running, but the given topic was left sealed and is unsealed now.
    Unsealed(String),
    /// No repartition was running, and the active log accepts submissions.
    NothingToCancel,
}

/// Cancels the running repartition, if any, and unseals the active log.
///
/// # Errors
/// When the store or Kafka fails. The next call continues where this one stopped.
pub async fn cancel(deps: &RepartitionDeps) -> Result<CancelOutcome, RepartitionError> {
    let store = deps.store.as_ref();
    let registry = store.registry().await?.ok_or(RegistryUpdateError::NoRegistry)?;
    let topic = registry.active.log.topic.clone();
    match &registry.building {
        Some(Building { record, .. }) if record.log != registry.active.log => {
            let generation = record.generation;
            Ok(match cancel_generation(store, &deps.migrator, generation).await? {
                GenerationCancel::Cancelled => CancelOutcome::Cancelled(generation, topic),
                GenerationCancel::AlreadyActive => CancelOutcome::AlreadyActive(generation),
            })
        }
        _ if unseal_if_left_sealed(store, &deps.migrator, &registry).await? => {
            Ok(CancelOutcome::Unsealed(topic))
        }
        _ => Ok(CancelOutcome::NothingToCancel),
    }
}

/// Whether a generation could be cancelled.
pub(super) enum GenerationCancel {
    /// The generation never becomes active, and submissions go to the old log.
    Cancelled,
    /// The generation is active already.
    AlreadyActive,
}

/// Cancels a generation that is, or was, being built on a new log.
///
/// # Errors
/// When the store or Kafka fails. The next call continues where this one stopped.
pub(super) async fn cancel_generation(
    store: &dyn Store,
    migrator: &TopicMigrator,
    generation: Generation,
) -> Result<GenerationCancel, RepartitionError> {
    loop {
        let registry = store.registry().await?.ok_or(RegistryUpdateError::NoRegistry)?;
        if registry.active.generation == generation {
            return Ok(GenerationCancel::AlreadyActive);
        }
        let building = registry.building.as_ref();
        let Some(Building { record, seal, .. }) =
            building.filter(|building| building.record.generation == generation)
        else {
            return Ok(GenerationCancel::Cancelled);
        };
        let updated = match seal {
            Seal::Sealed { .. } => {
                update_registry(store, |registry| unseal(registry, generation)).await
            }
            Seal::Open | Seal::Reopening { .. } => {
                if *seal != Seal::Open {
                    unseal_log(store, migrator, &registry.active.log, Some(&record.log)).await?;
                }
                update_registry(store, |registry| cancel_on_new_log(registry, generation)).await
            }
        };
        match updated {
            Ok(next) if next.building.is_none() => {
                clean_up(store, migrator, &record.log).await;
                return Ok(GenerationCancel::Cancelled);
            }
            // Another process updated the registry: read it again.
            Ok(_) | Err(RegistryUpdateError::Refused(_) | RegistryUpdateError::Unknown) => {}
            Err(error) => return Err(error.into()),
        }
        sleep(RETRY_DELAY).await;
    }
}

/// Unseals the active log if it is sealed without a repartition. Returns whether it was.
///
/// A process that was cancelled may seal the log late.
///
/// # Errors
/// When the store or Kafka fails.
pub(super) async fn unseal_if_left_sealed(
    store: &dyn Store,
    migrator: &TopicMigrator,
    registry: &GenerationRegistry,
) -> Result<bool, RepartitionError> {
    let log = &registry.active.log;
    if registry.building.is_some() || !migrator.is_sealed(log).await? {
        return Ok(false);
    }
    unseal_log(store, migrator, log, None).await?;
    Ok(true)
}

/// Unseals a log, and seals it again if it is no longer the active one.
///
/// An ingest process that missed the switch would otherwise append to a log that is not folded.
async fn unseal_log(
    store: &dyn Store,
    migrator: &TopicMigrator,
    log: &LogRef,
    like: Option<&LogRef>,
) -> Result<(), RepartitionError> {
    let deadline = Instant::now() + UNSEAL_TIMEOUT;
    (|| migrator.unseal(log, like))
        .retry(ConstantBuilder::new().with_delay(RETRY_DELAY).without_max_times())
        .when(|_| Instant::now() <= deadline)
        .notify(|error, pause| {
            tracing::warn!(
                %error,
                topic = log.topic,
                retry_in_ms = pause.as_millis() as u64,
                "failed to unseal the log, retrying",
            );
        })
        .await?;
    let registry = store.registry().await?.ok_or(RegistryUpdateError::NoRegistry)?;
    if registry.active.log != *log {
        tracing::error!(
            topic = log.topic,
            active_topic = registry.active.log.topic,
            "unsealed log is no longer the active one, sealing it again",
        );
        migrator.seal(log).await?;
        return Ok(());
    }
    tracing::info!(topic = log.topic, "log unsealed");
    Ok(())
}

/// Deletes the topic, the totals and the person rows of a cancelled generation.
///
/// A failure only wastes space: the next retirement deletes the rows.
async fn clean_up(store: &dyn Store, migrator: &TopicMigrator, log: &LogRef) {
    if let Err(error) = migrator.delete(log).await {
        tracing::warn!(%error, topic = log.topic, "failed to delete the topic of a cancelled repartition");
    }
    if let Err(error) = delete_retired(store).await {
        tracing::warn!(%error, "failed to delete the rows of a cancelled generation");
    }
}
