//! Raises the version of the fold that the generations need, before the log gets records that earlier versions reject.
//!
//! A processor that lacks the version stops when it reads the raised registry. Until then, it would reject the records,
//! and commit past them. So the version is not raised while such a processor owns a partition, as the claims in the
//! store say, and records are not appended before the claims say that none has claimed one meanwhile.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use schemas::{FOLD_VERSION, GenerationRecord, GenerationRegistry, fold_version_of_owner};
use storage::store::{PartitionRef, Store, StoreError};
use tokio::time::{Instant, sleep};

use super::{RegistryUpdateError, raise_fold_version, update_registry};

/// Time in which every processor reads a changed registry: ten polling intervals.
const PROCESSORS_FOLLOW: Duration = Duration::from_secs(5);
/// Maximum time until the partitions of a processor that stopped have other owners. The coordinator of the stopped one
/// feeds its owners for up to 20 s (`HAND_OVER_TIMEOUT`), and ends them in 5 s (`RELEASE_TIMEOUT`).
const OWNERS_FOLLOW: Duration = Duration::from_secs(30);
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// Why records that need a version of the fold may not be appended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FoldVersionError {
    /// Processors own partitions that lack the version.
    #[error(
        "{partitions} partitions are owned by processors of an earlier release, which would reject annulments: update \
         every processor first, and wait until updated ones own all partitions"
    )]
    EarlierOwners {
        /// Number of their partitions, in all generations that are folded.
        partitions: usize,
    },
    /// The registry could not be read or changed.
    #[error(transparent)]
    Registry(#[from] RegistryUpdateError),
}

impl From<StoreError> for FoldVersionError {
    fn from(error: StoreError) -> Self {
        Self::Registry(error.into())
    }
}

/// Checks that the generations need `version` already, or that every owner of a partition has it.
///
/// # Errors
/// When an owner lacks the version, there is no registry, or the store fails.
pub async fn check_fold_version(store: &dyn Store, version: u32) -> Result<(), FoldVersionError> {
    let registry = store.registry().await?.ok_or(RegistryUpdateError::NoRegistry)?;
    if is_raised(&registry, version) {
        return Ok(());
    }
    check_owners(store, &registry, version).await
}

/// Makes this process wait until every processor has a version of the fold.
#[derive(Debug, Default)]
pub struct FoldVersionGate {
    /// Whether this process has waited since the version was raised.
    has_waited: AtomicBool,
}

impl FoldVersionGate {
    /// Makes processors stop that have an earlier version of the fold than `version`, at most [`FOLD_VERSION`].
    ///
    /// Returns once they have had time to notice, and no partition is owned by one of them. The first call of a process
    /// waits even if the version is raised already: another process may have raised it just now, and have died. Records
    /// that need the version may be appended afterwards.
    ///
    /// # Errors
    /// When an owner lacks the version, the store fails, there is no registry, or a newer release wrote it. The version
    /// may have been raised nevertheless.
    pub async fn require(
        &self,
        store: &dyn Store,
        version: u32,
    ) -> Result<GenerationRegistry, FoldVersionError> {
        let version = version.min(FOLD_VERSION);
        let mut registry = store.registry().await?.ok_or(RegistryUpdateError::NoRegistry)?;
        if !is_raised(&registry, version) {
            self.has_waited.store(false, Ordering::Relaxed);
            check_owners(store, &registry, version).await?;
            let raise = |registry: &GenerationRegistry| Ok(raise_fold_version(registry, version));
            registry = update_registry(store, raise).await?;
            tracing::info!(version, "raised the version of the fold that the generations need");
        }
        if !self.has_waited.load(Ordering::Relaxed) {
            sleep(PROCESSORS_FOLLOW).await;
            wait_for_owners(store, &registry, version).await?;
            self.has_waited.store(true, Ordering::Relaxed);
        }
        Ok(registry)
    }
}

fn folded(registry: &GenerationRegistry) -> impl Iterator<Item = &GenerationRecord> {
    std::iter::once(&registry.active).chain(registry.shadows())
}

fn is_raised(registry: &GenerationRegistry, version: u32) -> bool {
    folded(registry).all(|record| record.fold_version >= version)
}

/// Waits until no partition is owned by a processor that lacks the version.
async fn wait_for_owners(
    store: &dyn Store,
    registry: &GenerationRegistry,
    version: u32,
) -> Result<(), FoldVersionError> {
    let deadline = Instant::now() + OWNERS_FOLLOW;
    loop {
        let checked = check_owners(store, registry, version).await;
        if checked.is_ok() || Instant::now() >= deadline {
            return checked;
        }
        sleep(POLL_INTERVAL).await;
    }
}

/// Checks that each partition's latest claim is of an owner that has the version. A partition without a claim passes.
async fn check_owners(
    store: &dyn Store,
    registry: &GenerationRegistry,
    version: u32,
) -> Result<(), FoldVersionError> {
    let mut partitions = 0;
    for GenerationRecord { generation, log, .. } in folded(registry) {
        for partition in log.partitions.partitions() {
            let id = PartitionRef { generation: *generation, partition };
            let stored = store.read_partition(id).await?;
            if stored.is_some_and(|stored| fold_version_of_owner(&stored.owner) < version) {
                partitions += 1;
            }
        }
    }
    if partitions == 0 { Ok(()) } else { Err(FoldVersionError::EarlierOwners { partitions }) }
}

#[cfg(test)]
mod tests {
    use schemas::{
        ANNULMENT_FOLD_VERSION, Generation, LogRef, PartitionCount, PartitionId, owner_name,
    };
    use storage::store::memory::MemoryStore;
    use storage::store::{CasOutcome, Checkpoints, Epoch, Generations};
    use uuid::Uuid;

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

    /// Requires a version as a process does that has just started.
    async fn require(
        store: &MemoryStore,
        version: u32,
    ) -> Result<GenerationRegistry, FoldVersionError> {
        FoldVersionGate::default().require(store, version).await
    }

    /// Claims a partition of the first generation.
    async fn claim(store: &MemoryStore, partition: u32, epoch: u32, owner: &str) {
        let id = PartitionRef { generation: Generation(1), partition: PartitionId(partition) };
        let expected = (epoch > 1).then(|| Epoch((epoch - 1).into()));
        let claimed = store.claim(id, expected, Epoch(epoch.into()), owner).await;
        assert_eq!(claimed, Ok(CasOutcome::Applied));
    }

    fn this_release() -> String {
        owner_name(1, Uuid::from_u128(7))
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_raised_while_a_processor_of_an_earlier_release_owns_a_partition() {
        let store = store_with(&first()).await;
        claim(&store, 0, 1, &this_release()).await;
        claim(&store, 7, 1, "4711-0193").await;
        claim(&store, 11, 1, "4711-0193").await;
        let earlier = Err(FoldVersionError::EarlierOwners { partitions: 2 });
        assert_eq!(check_fold_version(&store, ANNULMENT_FOLD_VERSION).await, earlier);
        let refused = require(&store, ANNULMENT_FOLD_VERSION).await;
        assert_eq!(refused.map(drop), earlier);
        assert_eq!(store.registry().await.unwrap().map(|it| versions(&it)), Some(vec![1]));
        claim(&store, 7, 2, &this_release()).await;
        claim(&store, 11, 2, &format!("{}-shadow", this_release())).await;
        assert_eq!(check_fold_version(&store, ANNULMENT_FOLD_VERSION).await, Ok(()));
        assert!(require(&store, ANNULMENT_FOLD_VERSION).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_may_be_appended_until_a_partition_claimed_meanwhile_has_another_owner() {
        let store = store_with(&first()).await;
        let claims = async {
            sleep(PROCESSORS_FOLLOW / 2).await;
            claim(&store, 3, 1, "4711-0193").await;
            sleep(Duration::from_secs(20)).await;
            claim(&store, 3, 2, &this_release()).await;
            Instant::now()
        };
        let required = async {
            require(&store, ANNULMENT_FOLD_VERSION).await.unwrap();
            Instant::now()
        };
        let (claimed_at, passed_at) = tokio::join!(claims, required);
        assert!(passed_at >= claimed_at);
        claim(&store, 3, 3, "4711-0193").await;
        let stays = require(&store, ANNULMENT_FOLD_VERSION).await;
        assert_eq!(stays.map(drop), Err(FoldVersionError::EarlierOwners { partitions: 1 }));
    }

    #[tokio::test(start_paused = true)]
    async fn each_process_waits_once_also_if_another_one_has_raised_the_version() {
        let (store, other) = (store_with(&first()).await, FoldVersionGate::default());
        let dies = other.require(&store, ANNULMENT_FOLD_VERSION);
        assert!(tokio::time::timeout(PROCESSORS_FOLLOW / 5, dies).await.is_err());
        for gate in [other, FoldVersionGate::default()] {
            for wait in [PROCESSORS_FOLLOW, Duration::ZERO] {
                let began = Instant::now();
                let raised = gate.require(&store, ANNULMENT_FOLD_VERSION).await.unwrap();
                assert_eq!((versions(&raised), began.elapsed()), (vec![2], wait));
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_version_is_raised_once_in_every_role_and_kept_by_generations_begun_later() {
        let building = begin(&first(), false, 0).unwrap();
        let previous = switch_active(&building, Generation(2)).unwrap();
        for registry in [building, previous] {
            let store = store_with(&registry).await;
            let raised = require(&store, ANNULMENT_FOLD_VERSION).await.unwrap();
            assert_eq!(versions(&raised), [2, 2]);
            let again = require(&store, ANNULMENT_FOLD_VERSION).await.unwrap();
            assert_eq!(again, raised, "a repetition changes nothing");
        }
        let store = store_with(&first()).await;
        let raised = require(&store, ANNULMENT_FOLD_VERSION).await.unwrap();
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
        require(&store, ANNULMENT_FOLD_VERSION).await.unwrap();
        assert_eq!(versions(&require(&store, 1).await.unwrap()), [2]);
        let none = require(&MemoryStore::new(), ANNULMENT_FOLD_VERSION).await;
        assert_eq!(none, Err(RegistryUpdateError::NoRegistry.into()));
        let newer = GenerationRegistry { not_understood: vec!["/x".into()], ..first() };
        let store = store_with(&newer).await;
        let refused = require(&store, ANNULMENT_FOLD_VERSION).await;
        assert_eq!(refused, Err(RegistryUpdateError::NotUnderstood("/x".into()).into()));
    }
}
