//! Whether the registry's row is older than the rest of the store, as after a restored backup of that row alone.

use std::time::Duration;

use schemas::{Generation, GenerationRegistry};
use storage::store::{KnownPartition, Store, StoreError};

/// Pause before the row is read again: another process may just have changed it.
const CONFIRMATION_PAUSE: Duration = Duration::from_secs(2);

/// Returns the registry if the store shows nothing later: no generation that the registry has yet to begin, and no
/// retired partition of its active one. A store that does not answer for all partitions shows nothing: a part of it that
/// is away is no reason to fold none of the others.
///
/// # Errors
/// When the store fails. [`StoreError::Corrupt`] if the registry is older than the rest of the store: the numbers of
/// later generations would be reused, and their data resumed.
pub async fn check_known_partitions(
    store: &dyn Store,
    registry: GenerationRegistry,
) -> Result<GenerationRegistry, StoreError> {
    match store.known_partitions().await {
        Ok(known) if later_than(&registry, &known).is_none() => return Ok(registry),
        Ok(_) => {}
        Err(StoreError::Unavailable(reason)) => {
            tracing::warn!(
                reason,
                "failed to compare the generation registry with the store, starting anyway"
            );
            return Ok(registry);
        }
        Err(error) => return Err(error),
    }
    tokio::time::sleep(CONFIRMATION_PAUSE).await;
    // Known partitions first: whoever claimed one of them had read a registry that knows it.
    let known = store.known_partitions().await?;
    let registry = store.registry().await?.unwrap_or(registry);
    match later_than(&registry, &known) {
        None => Ok(registry),
        Some(what) => Err(StoreError::Corrupt(format!(
            "the generation registry (table `roster`, revision {}) is older than the rest of the store: {what}. Restore \
             that table from a later backup, or the whole store from one; or delete everything in the store (the \
             keyspace, or `store.db`): it is derived from the log again",
            registry.revision
        ))),
    }
}

/// Returns what shows that the registry is older than the partitions.
fn later_than(registry: &GenerationRegistry, known: &[KnownPartition]) -> Option<String> {
    let Generation(next) = registry.next;
    let later = known.iter().map(|known| known.id.generation).filter(|it| it.0 >= next).max();
    if let Some(later) = later {
        return Some(format!(
            "it has yet to begin generation {next}, and the store knows generation {later}"
        ));
    }
    let active = registry.active.generation;
    let is_retired = |it: &KnownPartition| it.is_retired && it.id.generation == active;
    known
        .iter()
        .any(is_retired)
        .then(|| format!("its active generation {active} was retired, and its data are deleted"))
}
