//! Deletes the person rows of retired generations.

use schemas::{GenerationRecord, GenerationRegistry};
use storage::store::{PartitionRef, Store};

use super::{RegistryUpdateError, remove_retired, update_registry};

/// Deletes the person rows of every retired generation and removes it from the registry.
///
/// # Errors
/// When the store fails. The next call continues where this one stopped.
pub async fn delete_retired(store: &dyn Store) -> Result<GenerationRegistry, RegistryUpdateError> {
    let mut registry = store.registry().await?.ok_or(RegistryUpdateError::NoRegistry)?;
    for GenerationRecord { generation, log } in registry.retired.clone() {
        for partition in log.partitions.partitions() {
            store.delete_people(PartitionRef { generation, partition }).await?;
        }
        registry =
            update_registry(store, |registry| Ok(remove_retired(registry, generation))).await?;
    }
    Ok(registry)
}
