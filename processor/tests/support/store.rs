//! A store with the faults that a test switches on; without any it is the one in memory.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_trait::async_trait;
use schemas::{
    BudgetId, Generation, PartitionCount, PartitionId, PartitionReport, PersonKey, PersonRow,
    Position, Roster,
};
use storage::store::memory::MemoryStore;
use storage::store::{
    Commit, Conditional, Damaged, Epoch, PartitionRef, Store, StoreError, StoredPartition, Summary,
};
use tokio::sync::watch;

/// Lets calls through or has them wait until it does.
pub struct Gate(watch::Sender<bool>);

impl Default for Gate {
    fn default() -> Self {
        Self(watch::Sender::new(true))
    }
}

impl Gate {
    pub fn close(&self) {
        self.0.send_replace(false);
    }

    pub fn open(&self) {
        self.0.send_replace(true);
    }

    async fn pass(&self) {
        self.0.subscribe().wait_for(|open| *open).await.unwrap();
    }
}

#[derive(Default)]
pub struct FaultyStore {
    pub inner: MemoryStore,
    pub commits: Gate,
    pub people: Gate,
    /// Partitions whose claims are never answered.
    pub silent: Mutex<BTreeSet<PartitionId>>,
    /// Somebody else is faster at the next claim.
    pub rival: AtomicBool,
    /// The next commit is acknowledged and forgotten, as by a server that is killed before its log reaches the disk.
    pub forgets: AtomicBool,
    /// The next change of the roster has no answer, and is carried out when the one after it comes: as a round of Paxos
    /// that was accepted, and that the next one completes.
    pub hangs: AtomicBool,
    hanging: Mutex<Option<Roster>>,
    /// Whether every third call of a conditional write loses its answer, and every sixth is not even carried out.
    loses: bool,
    calls: AtomicU64,
}

impl FaultyStore {
    /// One whose answers get lost.
    pub fn losing() -> Self {
        Self { loses: true, ..Self::default() }
    }

    /// Another process claims a partition.
    pub async fn claim_for_rival(&self, partition: PartitionRef) {
        let epoch = self.inner.read_partition(partition).await.unwrap().map(|stored| stored.epoch);
        let next = Epoch(epoch.map_or(1, |epoch| epoch.0 + 1));
        self.inner.claim(partition, epoch, next, "rival").await.unwrap();
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
impl Store for FaultyStore {
    async fn read_partition(
        &self,
        partition: PartitionRef,
    ) -> Result<Option<StoredPartition>, StoreError> {
        self.lose(self.inner.read_partition(partition)).await
    }
    async fn claim(
        &self,
        partition: PartitionRef,
        expected: Option<Epoch>,
        next: Epoch,
        owner: &str,
    ) -> Result<Conditional, StoreError> {
        if self.silent.lock().unwrap().contains(&partition.partition) {
            std::future::pending::<()>().await;
        }
        if self.rival.swap(false, Ordering::Relaxed) {
            self.claim_for_rival(partition).await;
        }
        self.lose(self.inner.claim(partition, expected, next, owner)).await
    }
    async fn commit(
        &self,
        partition: PartitionRef,
        commit: &Commit,
    ) -> Result<Conditional, StoreError> {
        self.commits.pass().await;
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
        partition: PartitionRef,
        bucket: u8,
        row: &mut (dyn FnMut(PersonRow) + Send),
    ) -> Result<(), StoreError> {
        self.people.pass().await;
        self.inner.read_people(partition, bucket, row).await
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
    async fn roster(&self) -> Result<Option<Roster>, StoreError> {
        self.lose(self.inner.roster()).await
    }
    async fn change_roster(&self, next: &Roster) -> Result<Conditional, StoreError> {
        if self.hangs.swap(false, Ordering::Relaxed) {
            *self.hanging.lock().unwrap() = Some(next.clone());
            return Err(StoreError::Unavailable("no answer".into()));
        }
        let hanging = self.hanging.lock().unwrap().take();
        if let Some(hanging) = hanging {
            self.inner.change_roster(&hanging).await?;
        }
        self.lose(self.inner.change_roster(next)).await
    }
    async fn write_report(
        &self,
        partition: PartitionRef,
        report: &PartitionReport,
    ) -> Result<(), StoreError> {
        self.inner.write_report(partition, report).await
    }
    async fn reports(
        &self,
        generation: Generation,
        partitions: PartitionCount,
    ) -> Result<Vec<Option<PartitionReport>>, StoreError> {
        self.inner.reports(generation, partitions).await
    }
    async fn delete_people(&self, partition: PartitionRef) -> Result<(), StoreError> {
        self.inner.delete_people(partition).await
    }
}
