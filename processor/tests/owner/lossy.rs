//! A store whose answers get lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_trait::async_trait;
use schemas::{BudgetId, Generation, PartitionCount, PersonKey, PersonRow, Position};
use storage::store::memory::MemoryStore;
use storage::store::{
    Commit, Conditional, Damaged, Epoch, GenerationRecord, PartitionRef, Store, StoreError,
    StoredPartition, Summary,
};

/// Every third call of a conditional write loses its answer; every sixth is not even carried out.
pub struct Lossy {
    pub inner: MemoryStore,
    calls: AtomicU64,
    loses: bool,
    /// The next commit is acknowledged and forgotten, as by a server that is killed before its log reaches the disk.
    pub forgets: AtomicBool,
}

impl Lossy {
    pub fn new(loses: bool) -> Arc<Self> {
        Arc::new(Self {
            inner: MemoryStore::default(),
            calls: AtomicU64::new(0),
            loses,
            forgets: AtomicBool::new(false),
        })
    }

    async fn lose<T>(
        &self,
        call: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        let lost = || StoreError::Unavailable("lost".into());
        let number = self.calls.fetch_add(1, Ordering::Relaxed);
        if !self.loses || !number.is_multiple_of(3) {
            return call.await;
        }
        if number.is_multiple_of(2) {
            call.await?;
        }
        Err(lost())
    }
}

#[async_trait]
impl Store for Lossy {
    async fn read_partition(
        &self,
        partition: PartitionRef,
    ) -> Result<Option<StoredPartition>, StoreError> {
        self.lose(self.inner.read_partition(partition)).await
    }
    async fn claim(
        &self,
        p: PartitionRef,
        expected: Option<Epoch>,
        next: Epoch,
        owner: &str,
    ) -> Result<Conditional, StoreError> {
        self.lose(self.inner.claim(p, expected, next, owner)).await
    }
    async fn commit(
        &self,
        partition: PartitionRef,
        commit: &Commit,
    ) -> Result<Conditional, StoreError> {
        // One that only tells of people's rows is made good by the next.
        let moves = commit.checkpoint.position > commit.from;
        if moves && self.forgets.swap(false, Ordering::Relaxed) {
            return Ok(Conditional::Applied);
        }
        self.lose(self.inner.commit(partition, commit)).await
    }
    async fn summaries(
        &self,
        generation: Generation,
        partitions: PartitionCount,
        budgets: &[BudgetId],
    ) -> Result<Vec<Result<Summary, Damaged>>, StoreError> {
        self.inner.summaries(generation, partitions, budgets).await
    }
    async fn write_people(
        &self,
        partition: PartitionRef,
        rows: &[PersonRow],
    ) -> Result<(), StoreError> {
        self.lose(self.inner.write_people(partition, rows)).await
    }
    async fn read_people(
        &self,
        p: PartitionRef,
        bucket: u8,
        row: &mut (dyn FnMut(PersonRow) + Send),
    ) -> Result<(), StoreError> {
        self.inner.read_people(p, bucket, row).await
    }
    async fn person(
        &self,
        partition: PartitionRef,
        person: &PersonKey,
    ) -> Result<Option<PersonRow>, StoreError> {
        self.inner.person(partition, person).await
    }
    async fn state_position(
        &self,
        partition: PartitionRef,
    ) -> Result<Option<Position>, StoreError> {
        self.inner.state_position(partition).await
    }
    async fn current_generation(&self) -> Result<Option<GenerationRecord>, StoreError> {
        self.inner.current_generation().await
    }
    async fn begin_first_generation(
        &self,
        first: &GenerationRecord,
    ) -> Result<GenerationRecord, StoreError> {
        self.inner.begin_first_generation(first).await
    }
}
