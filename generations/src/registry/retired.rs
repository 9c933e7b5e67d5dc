//! Deletes the data of retired generations.

use std::collections::BTreeSet;
use std::time::Duration;

use backon::{ConstantBuilder, Retryable};
use schemas::{Generation, GenerationRecord, GenerationRegistry};
use storage::store::{PartitionRef, Store, StoreError};

use super::{RegistryUpdateError, remove_retired, update_registry};

const RETRY_DELAY: Duration = Duration::from_millis(200);
/// Retries of one partition. A late owner's commits can delay the conditional write that ends them.
const MAX_RETRIES: usize = 10;

/// Deletes totals and person rows of every retired generation and removes it from the registry.
///
/// Also deletes what an earlier release left of retired generations, of which it deleted only the person rows.
///
/// # Errors
/// When the store fails. The next call continues where this one stopped.
pub async fn delete_retired(store: &dyn Store) -> Result<GenerationRegistry, RegistryUpdateError> {
    let mut registry = store.registry().await?.ok_or(RegistryUpdateError::NoRegistry)?;
    for GenerationRecord { generation, log, .. } in registry.retired.clone() {
        for partition in log.partitions.partitions() {
            retire_partition(store, PartitionRef { generation, partition }).await?;
        }
        registry =
            update_registry(store, |registry| Ok(remove_retired(registry, generation))).await?;
    }
    for known in store.known_partitions().await? {
        if !known.is_retired && has_ended(&registry, known.id.generation) {
            retire_partition(store, known.id).await?;
        }
    }
    Ok(registry)
}

/// Whether a generation has had a role and never gets one again, as numbers are not reused.
fn has_ended(registry: &GenerationRegistry, generation: Generation) -> bool {
    let roles: BTreeSet<_> = std::iter::once(&registry.active)
        .chain(registry.shadows())
        .chain(&registry.retired)
        .map(|record| record.generation)
        .collect();
    generation < registry.next && !roles.contains(&generation)
}

async fn retire_partition(store: &dyn Store, partition: PartitionRef) -> Result<(), StoreError> {
    (|| store.retire_partition(partition))
        .retry(ConstantBuilder::new().with_delay(RETRY_DELAY).with_max_times(MAX_RETRIES))
        .when(|error| matches!(error, StoreError::Unavailable(_)))
        .await
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use schemas::{LogRef, PartitionCount, PartitionId};
    use storage::store::memory::MemoryStore;
    use storage::store::{
        CasOutcome, Epoch, Generations, InterceptedStore, Interceptor, StoreOperation,
    };

    use super::super::{TransitionRefused, begin, cancel, retire, switch_active};
    use super::*;

    const PARTITIONS: u32 = 3;

    fn partition(generation: u32, number: u32) -> PartitionRef {
        PartitionRef { generation: Generation(generation), partition: PartitionId(number) }
    }

    /// A store whose process dies after a number of writes: every later one fails.
    #[derive(Default)]
    struct DyingProcess {
        inner: MemoryStore,
        writes_left: AtomicU64,
    }

    impl Interceptor for DyingProcess {
        fn store(&self) -> Result<&dyn Store, StoreError> {
            Ok(&self.inner)
        }

        async fn intercept<T: Send>(
            &self,
            operation: StoreOperation<'_>,
            call: impl Future<Output = Result<T, StoreError>> + Send,
        ) -> Result<T, StoreError> {
            let take_one = |left: u64| left.checked_sub(1);
            let order = Ordering::Relaxed;
            if operation.is_write()
                && self.writes_left.fetch_update(order, order, take_one).is_err()
            {
                return Err(StoreError::Unavailable("the process is dead".into()));
            }
            call.await
        }
    }

    /// Generations 1 (retired), 2 (active), 3 (discarded) and 4 (building), each with claimed partitions.
    async fn prepare(store: &dyn Store) {
        let log = LogRef::first("submissions", PartitionCount::new(PARTITIONS.into()).unwrap());
        store.change_registry(&GenerationRegistry::first(log)).await.unwrap();
        let transitions: [fn(&GenerationRegistry) -> Result<_, TransitionRefused>; 6] = [
            |registry| begin(registry, false, 0),
            |registry| switch_active(registry, Generation(2)),
            |registry| retire(registry, Generation(1)),
            |registry| begin(registry, true, 0),
            |registry| cancel(registry, Generation(3)),
            |registry| begin(registry, false, 0),
        ];
        for transition in transitions {
            update_registry(store, transition).await.unwrap();
        }
        for generation in 1..=5 {
            for number in 0..PARTITIONS {
                let id = partition(generation, number);
                let claimed = store.claim(id, None, Epoch(1), "an owner").await;
                assert_eq!(claimed, Ok(CasOutcome::Applied));
            }
        }
    }

    async fn claimed(store: &dyn Store) -> BTreeSet<u32> {
        let known = store.known_partitions().await.unwrap();
        let claimed = known.into_iter().filter(|known| !known.is_retired);
        claimed.map(|known| known.id.generation.0).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_deletion_that_is_interrupted_at_any_write_is_continued_by_the_next() {
        let mut interrupted = 0;
        for writes in 0.. {
            let store = InterceptedStore::<DyingProcess>::new();
            prepare(&store.inner).await;
            store.writes_left.store(writes, Ordering::Relaxed);
            let is_done = delete_retired(&store).await.is_ok();
            if !is_done {
                interrupted += 1;
                // What is not deleted yet is still listed.
                let listed = store.inner.registry().await.unwrap().unwrap().retired;
                let listed: BTreeSet<_> = listed.iter().map(|record| record.generation.0).collect();
                assert!(claimed(&store.inner).await.is_subset(&(&listed | &[2, 4, 5].into())));
                delete_retired(&store.inner).await.unwrap();
            }
            assert!(store.inner.registry().await.unwrap().unwrap().retired.is_empty());
            // Generation 5 is that of a process which has read a later registry.
            assert_eq!(claimed(&store.inner).await, [2, 4, 5].into());
            if is_done {
                // Six partitions and two changes of the registry.
                assert_eq!(interrupted, 8);
                return;
            }
        }
    }

    #[tokio::test]
    async fn what_an_earlier_release_left_of_retired_generations_is_deleted() {
        let store = MemoryStore::new();
        prepare(&store).await;
        for generation in [1, 3] {
            let remove = |registry: &_| Ok(remove_retired(registry, Generation(generation)));
            update_registry(&store, remove).await.unwrap();
        }
        assert_eq!(claimed(&store).await, [1, 2, 3, 4, 5].into());
        delete_retired(&store).await.unwrap();
        assert_eq!(claimed(&store).await, [2, 4, 5].into());
    }
}
