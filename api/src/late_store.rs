//! A store that may be away when the process starts: until it can be opened it answers that it is unavailable, and
//! reads come from the other tiers.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use schemas::{BudgetId, Generation, PartitionCount, PersonKey, PersonRow};
use storage::store::{
    Commit, Conditional, Damaged, Epoch, GenerationRecord, PartitionRef, Store, StoreError,
    StoredPartition, Summary,
};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// Between two attempts to open it.
const AGAIN: Duration = Duration::from_secs(1);

/// A store that is opened in the background.
#[derive(Default)]
pub struct LateStore {
    opened: OnceLock<Arc<dyn Store>>,
}

impl LateStore {
    /// Starts to open the store, again and again until it succeeds or `stop` is cancelled. Must be called inside a
    /// tokio runtime.
    pub fn open<Opening, E>(
        open: impl Fn() -> Opening + Send + 'static,
        stop: CancellationToken,
    ) -> Arc<Self>
    where
        Opening: Future<Output = Result<Arc<dyn Store>, E>> + Send,
        E: std::fmt::Display,
    {
        let late = Arc::new(Self::default());
        let opening = Arc::clone(&late);
        tokio::spawn(stop.run_until_cancelled_owned(async move {
            loop {
                match open().await {
                    Ok(store) => {
                        let _ = opening.opened.set(store);
                        return;
                    }
                    Err(error) => tracing::warn!(%error, "the store is not there yet"),
                }
                sleep(AGAIN).await;
            }
        }));
        late
    }

    fn store(&self) -> Result<&Arc<dyn Store>, StoreError> {
        self.opened.get().ok_or_else(|| StoreError::Unavailable("it is not there yet".to_owned()))
    }
}

#[async_trait]
impl Store for LateStore {
    async fn read_partition(
        &self,
        partition: PartitionRef,
    ) -> Result<Option<StoredPartition>, StoreError> {
        self.store()?.read_partition(partition).await
    }

    async fn claim(
        &self,
        partition: PartitionRef,
        expected: Option<Epoch>,
        next: Epoch,
        owner: &str,
    ) -> Result<Conditional, StoreError> {
        self.store()?.claim(partition, expected, next, owner).await
    }

    async fn commit(
        &self,
        partition: PartitionRef,
        commit: &Commit,
    ) -> Result<Conditional, StoreError> {
        self.store()?.commit(partition, commit).await
    }

    async fn summaries(
        &self,
        generation: Generation,
        partitions: PartitionCount,
        budgets: &[BudgetId],
    ) -> Result<Vec<Result<Summary, Damaged>>, StoreError> {
        self.store()?.summaries(generation, partitions, budgets).await
    }

    async fn write_people(
        &self,
        partition: PartitionRef,
        rows: &[PersonRow],
    ) -> Result<(), StoreError> {
        self.store()?.write_people(partition, rows).await
    }

    async fn read_people(
        &self,
        partition: PartitionRef,
        bucket: u8,
        row: &mut (dyn FnMut(PersonRow) + Send),
    ) -> Result<(), StoreError> {
        self.store()?.read_people(partition, bucket, row).await
    }

    async fn person(
        &self,
        partition: PartitionRef,
        person: &PersonKey,
    ) -> Result<Option<PersonRow>, StoreError> {
        self.store()?.person(partition, person).await
    }

    async fn current_generation(&self) -> Result<Option<GenerationRecord>, StoreError> {
        self.store()?.current_generation().await
    }

    async fn begin_first_generation(
        &self,
        first: &GenerationRecord,
    ) -> Result<GenerationRecord, StoreError> {
        self.store()?.begin_first_generation(first).await
    }
}
