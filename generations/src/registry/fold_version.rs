//! Raises the version of the fold that the generations need, before the log gets records that earlier versions reject.

use std::time::Duration;

use schemas::{FOLD_VERSION, GenerationRegistry};
use storage::store::Store;

use super::{RegistryUpdateError, raise_fold_version, update_registry};

/// Time in which every processor reads a changed registry: several polling intervals.
const PROCESSORS_FOLLOW: Duration = Duration::from_secs(3);

/// Makes processors stop that have an earlier version of the fold than `version`, at most [`FOLD_VERSION`].
///
/// Returns once they have had time to notice, at once if the generations need that version already. Records that need
/// the version may be appended afterwards.
///
/// # Errors
/// When the store fails, there is no registry, or a newer release wrote it. After a failure of the store the version
/// may have been raised.
pub async fn require_fold_version(
    store: &dyn Store,
    version: u32,
) -> Result<GenerationRegistry, RegistryUpdateError> {
    let version = version.min(FOLD_VERSION);
    let registry = store.registry().await?.ok_or(RegistryUpdateError::NoRegistry)?;
    let is_raised = std::iter::once(&registry.active)
        .chain(registry.shadows())
        .all(|record| record.fold_version >= version);
    if is_raised {
        return Ok(registry);
    }
    let raised =
        update_registry(store, |registry| Ok(raise_fold_version(registry, version))).await?;
    tracing::info!(version, "raised the version of the fold that the generations need");
    tokio::time::sleep(PROCESSORS_FOLLOW).await;
    Ok(raised)
}

#[cfg(test)]
mod tests {
    use schemas::{ANNULMENT_FOLD_VERSION, Generation, LogRef, PartitionCount};
    use storage::store::Generations;
    use storage::store::memory::MemoryStore;

    use super::super::{begin, begin_on_new_log, cancel, roll_back, switch_active};
    use super::*;

    fn versions(registry: &GenerationRegistry) -> Vec<u32> {
        let all = std::iter::once(&registry.active).chain(registry.shadows());
        all.map(|record| record.fold_version).collect()
    }

    fn first() -> GenerationRegistry {
        GenerationRegistry::first(LogRef::first("submissions", PartitionCount::new(12).unwrap()))
    }

    async fn store_with(registry: &GenerationRegistry) -> MemoryStore {
        let store = MemoryStore::new();
        // A store's first row has the first revision.
        store
            .change_registry(&GenerationRegistry { revision: 1, ..registry.clone() })
            .await
            .unwrap();
        store
    }

    #[tokio::test(start_paused = true)]
    async fn the_version_is_raised_once_in_every_role_and_kept_by_generations_begun_later() {
        let building = begin(&first(), false, 0).unwrap();
        let previous = switch_active(&building, Generation(2)).unwrap();
        for registry in [building, previous] {
            let store = store_with(&registry).await;
            let raised = require_fold_version(&store, ANNULMENT_FOLD_VERSION).await.unwrap();
            assert_eq!(versions(&raised), [2, 2]);
            let again = require_fold_version(&store, ANNULMENT_FOLD_VERSION).await.unwrap();
            assert_eq!(again, raised, "a repetition changes nothing");
        }
        let store = store_with(&first()).await;
        let raised = require_fold_version(&store, ANNULMENT_FOLD_VERSION).await.unwrap();
        let seven = PartitionCount::new(7).unwrap();
        let repartition = begin_on_new_log(&raised, "submissions", seven, 0).unwrap();
        assert_eq!(versions(&repartition), [2, 2]);
        let rebuilt = switch_active(&begin(&raised, false, 0).unwrap(), Generation(2)).unwrap();
        assert_eq!(versions(&roll_back(&rebuilt, Generation(1)).unwrap()), [2, 2]);
        assert_eq!(
            versions(&cancel(&begin(&raised, true, 0).unwrap(), Generation(2)).unwrap()),
            [2]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn the_version_is_never_lowered_and_a_missing_or_newer_registry_is_refused() {
        let store = store_with(&first()).await;
        require_fold_version(&store, ANNULMENT_FOLD_VERSION).await.unwrap();
        assert_eq!(versions(&require_fold_version(&store, 1).await.unwrap()), [2]);
        let none = require_fold_version(&MemoryStore::new(), ANNULMENT_FOLD_VERSION).await;
        assert_eq!(none, Err(RegistryUpdateError::NoRegistry));
        let newer = GenerationRegistry { not_understood: vec!["/x".into()], ..first() };
        let store = store_with(&newer).await;
        let refused = require_fold_version(&store, ANNULMENT_FOLD_VERSION).await;
        assert_eq!(refused, Err(RegistryUpdateError::NotUnderstood("/x".into())));
    }
}
