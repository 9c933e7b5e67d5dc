//! Checks of the active generation's log against what a process is configured with.

use schemas::{GenerationRecord, GenerationRegistry, LogNumber, LogRef, PartitionCount};
use storage::open_error::OpenError;
use storage::store::{Store, StoreError};

/// Returns the registry if its active generation derives from the given topic.
///
/// # Errors
/// When there is no registry, or the topic or partition count is a different one: a description.
pub fn require_active_log(
    registry: Option<GenerationRegistry>,
    topic: &str,
    partitions: PartitionCount,
) -> Result<GenerationRegistry, String> {
    let registry = registry.ok_or("there is no generation yet: no processor ever started")?;
    let active = &registry.active;
    if active.log.topic != topic || active.log.partitions != partitions {
        return Err(format!(
            "the active generation {} derives from topic `{}` with {} partitions now, not from `{topic}` with {}",
            active.generation,
            active.log.topic,
            active.log.partitions.get(),
            partitions.get(),
        ));
    }
    Ok(registry)
}

/// Reads which log the active generation derives from. `first` is the log of a new deployment.
///
/// # Errors
/// When there is no generation, the deployment began with another log than is configured, or the
/// store fails.
pub async fn active_log(store: &dyn Store, first: &LogRef) -> Result<LogRef, OpenError> {
    let invalid = |reason| OpenError::Invalid { backend: "the log", reason };
    let registry = match store.registry().await {
        Ok(registry) => registry,
        Err(error) => {
            let (backend, reason) = ("the store", error.to_string());
            return Err(match error {
                StoreError::Unavailable(_) => OpenError::Unavailable { backend, reason },
                StoreError::Corrupt(_) => OpenError::Invalid { backend, reason },
            });
        }
    };
    let none = || invalid("there is no generation yet: no processor ever started".to_owned());
    let active = registry.ok_or_else(none)?.active;
    check_configured_log(&active, first).map_err(invalid)?;
    Ok(active.log)
}

/// Checks that a generation may be active where `first` is configured as the first log.
///
/// Later logs come from repartitions and are not configured.
///
/// # Errors
/// When the generation derives from a first log other than the configured one: a description.
pub fn check_configured_log(active: &GenerationRecord, first: &LogRef) -> Result<(), String> {
    if active.log.number > LogNumber::FIRST || active.log == *first {
        return Ok(());
    }
    Err(format!(
        "the active generation {} derives from topic `{}` with {} partitions, but `{}` with {} is configured \
         (use `processor repartition` to change the partition count)",
        active.generation,
        active.log.topic,
        active.log.partitions.get(),
        first.topic,
        first.partitions.get(),
    ))
}
