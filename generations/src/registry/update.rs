//! Writes a new registry over its predecessor by compare-and-set.

use async_trait::async_trait;
use schemas::{Generation, GenerationRegistry, LogRef};
use storage::cas::{self, VersionedRow};
use storage::store::{CasOutcome, Store, StoreError};

use super::TransitionRefused;

/// Why the registry was not updated, or may not have been.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistryUpdateError {
    /// The current registry does not allow the transition.
    #[error(transparent)]
    Refused(#[from] TransitionRefused),
    /// The store is unavailable or holds a damaged registry.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The write timed out and another process has updated the registry since.
    #[error(
        "unknown whether the registry was updated, because another process updated it meanwhile: \
         see `generations list`"
    )]
    Unknown,
    /// No processor ever started.
    #[error("there is no generation yet: no processor ever started")]
    NoRegistry,
    /// The registry has members that an update by this release would drop.
    #[error(
        "a newer release wrote the generation registry ({0} is unknown), and this release does not change it: use that release"
    )]
    NotUnderstood(String),
}

/// The registry's row in the store.
struct RegistryRow<'s>(&'s dyn Store);

#[async_trait]
impl VersionedRow for RegistryRow<'_> {
    type Value = GenerationRegistry;

    fn revision(registry: &GenerationRegistry) -> u64 {
        registry.revision
    }

    async fn read(&self) -> Result<Option<GenerationRegistry>, StoreError> {
        self.0.registry().await
    }

    async fn write(&self, next: &GenerationRegistry) -> Result<CasOutcome, StoreError> {
        self.0.change_registry(next).await
    }
}

/// Applies a transition to the stored registry and returns the new one.
///
/// # Errors
/// When the transition is refused or the store fails. After a store failure the transition may
/// have been applied.
pub async fn update_registry(
    store: &dyn Store,
    transition: impl Fn(&GenerationRegistry) -> Result<GenerationRegistry, TransitionRefused>,
) -> Result<GenerationRegistry, RegistryUpdateError> {
    let step = |current: Option<&GenerationRegistry>| {
        let current = current.ok_or(RegistryUpdateError::NoRegistry)?;
        if !current.not_understood.is_empty() {
            return Err(RegistryUpdateError::NotUnderstood(current.not_understood.join(", ")));
        }
        Ok(transition(current)?)
    };
    cas::update(&RegistryRow(store), step).await.map_err(|error| match error {
        cas::UpdateError::Refused(refused) => refused,
        cas::UpdateError::Store(error) => error.into(),
        cas::UpdateError::Unknown => RegistryUpdateError::Unknown,
    })
}

/// Returns the stored registry, or creates one whose first generation derives from `log`.
///
/// Processes that create it concurrently all get the same registry.
///
/// # Errors
/// When the store fails. [`StoreError::Corrupt`] when the registry is lost: the store knows partitions of the first
/// generation or a later one, whose numbers a new registry would reuse, and whose people may be deleted.
pub async fn load_or_create(
    store: &dyn Store,
    log: &LogRef,
) -> Result<GenerationRegistry, StoreError> {
    loop {
        if let Some(registry) = store.registry().await? {
            return Ok(registry);
        }
        let first = GenerationRegistry::first(log.clone());
        let known = store.known_partitions().await?.into_iter().map(|known| known.id.generation);
        if let Some(reused) = known.filter(|known| *known >= first.active.generation).min() {
            // Another process may have created the registry, and claimed a partition since.
            if let Some(registry) = store.registry().await? {
                return Ok(registry);
            }
            return Err(lost_registry(reused));
        }
        // A refused write means that another process created it first.
        store.change_registry(&first).await?;
    }
}

fn lost_registry(generation: Generation) -> StoreError {
    StoreError::Corrupt(format!(
        "the generation registry is lost: the store knows generation {generation}, but its table `roster` is empty. \
         Restore that table from a backup, or delete everything in the store (the keyspace, or `store.db`): it is \
         derived from the log again"
    ))
}
