//! A store as one process sees it that is killed, or stands still, at a certain call: at its beginning, or after it took
//! effect and before its answer came.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use schemas::job::{Job, JobId};
use schemas::{
    BudgetId, Generation, PartitionCount, PartitionReport, PersonKey, PersonRow, Position, Roster,
};
use storage::jobs::JobStore;
use storage::store::memory::MemoryStore;
use storage::store::{
    Commit, Conditional, Damaged, Epoch, PartitionRef, Store, StoreError, StoredPartition, Summary,
};
use tokio::sync::watch;

pub struct Mortal {
    inner: Arc<MemoryStore>,
    calls: AtomicU64,
    /// The call at which everything stands still, and whether it took effect before.
    stops_at: (u64, bool),
    goes_on: watch::Sender<bool>,
}

impl Mortal {
    pub fn new(inner: Arc<MemoryStore>, stops_at: (u64, bool)) -> Self {
        Self { inner, calls: AtomicU64::new(0), stops_at, goes_on: watch::Sender::new(false) }
    }

    /// How many calls there were.
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// Whether the call has come.
    pub fn stands_still(&self) -> bool {
        self.calls() > self.stops_at.0
    }

    /// It was not killed: it only stood still.
    pub fn go_on(&self) {
        self.goes_on.send_replace(true);
    }

    async fn call<T>(&self, call: impl Future<Output = T> + Send) -> T {
        let number = self.calls.fetch_add(1, Ordering::Relaxed);
        let (last, after) = self.stops_at;
        if number > last || (number == last && !after) {
            self.wait().await;
        }
        let answer = call.await;
        if number == last && after {
            self.wait().await;
        }
        answer
    }

    async fn wait(&self) {
        self.goes_on.subscribe().wait_for(|goes_on| *goes_on).await.unwrap();
    }
}

#[async_trait]
impl JobStore for Mortal {
    async fn jobs(&self) -> Result<Vec<Job>, StoreError> {
        self.call(self.inner.jobs()).await
    }
    async fn job(&self, id: JobId) -> Result<Option<Job>, StoreError> {
        self.call(self.inner.job(id)).await
    }
    async fn change_job(&self, next: &Job) -> Result<Conditional, StoreError> {
        self.call(self.inner.change_job(next)).await
    }
    async fn delete_job(&self, job: &Job) -> Result<Conditional, StoreError> {
        self.call(self.inner.delete_job(job)).await
    }
}

#[async_trait]
impl Store for Mortal {
    async fn roster(&self) -> Result<Option<Roster>, StoreError> {
        self.call(self.inner.roster()).await
    }
    async fn change_roster(&self, next: &Roster) -> Result<Conditional, StoreError> {
        self.call(self.inner.change_roster(next)).await
    }
    async fn reports(
        &self,
        generation: Generation,
        partitions: PartitionCount,
    ) -> Result<Vec<Option<PartitionReport>>, StoreError> {
        self.call(self.inner.reports(generation, partitions)).await
    }
    async fn delete_people(&self, partition: PartitionRef) -> Result<(), StoreError> {
        self.call(self.inner.delete_people(partition)).await
    }
    async fn write_report(
        &self,
        partition: PartitionRef,
        report: &PartitionReport,
    ) -> Result<(), StoreError> {
        self.inner.write_report(partition, report).await
    }
    async fn read_partition(
        &self,
        partition: PartitionRef,
    ) -> Result<Option<StoredPartition>, StoreError> {
        self.inner.read_partition(partition).await
    }
    async fn claim(
        &self,
        partition: PartitionRef,
        expected: Option<Epoch>,
        next: Epoch,
        owner: &str,
    ) -> Result<Conditional, StoreError> {
        self.inner.claim(partition, expected, next, owner).await
    }
    async fn commit(
        &self,
        partition: PartitionRef,
        commit: &Commit,
    ) -> Result<Conditional, StoreError> {
        self.inner.commit(partition, commit).await
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
        self.inner.write_people(partition, rows).await
    }
    async fn read_people(
        &self,
        partition: PartitionRef,
        bucket: u8,
        row: &mut (dyn FnMut(PersonRow) + Send),
    ) -> Result<(), StoreError> {
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
}
