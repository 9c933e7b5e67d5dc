//! A store that passes each call on to the one in memory, with what a test puts around it. Not every test looks at all of
//! it.
#![allow(dead_code)]

use std::sync::Arc;

use async_trait::async_trait;
use schemas::job::{Job, JobId};
use schemas::{
    BudgetId, Generation, PartitionCount, PartitionReport, PersonKey, PersonRow, Position, Roster,
};
use storage::jobs::{JobRows, JobStore};
use storage::store::memory::MemoryStore;
use storage::store::{
    Commit, Conditional, Damaged, Epoch, PartitionRef, Store, StoreError, StoredPartition, Summary,
};

/// What a call is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    ReadJobs,
    ChangeJob,
    ReadRoster,
    ChangeRoster,
    ReadReports,
    WriteReport,
    ReadPartition,
    Claim,
    Commit,
    ReadPeople,
    WritePeople,
    DeletePeople,
}

impl Call {
    pub fn changes_something(self) -> bool {
        match self {
            Self::ReadJobs
            | Self::ReadRoster
            | Self::ReadReports
            | Self::ReadPartition
            | Self::ReadPeople => false,
            Self::ChangeJob
            | Self::ChangeRoster
            | Self::WriteReport
            | Self::Claim
            | Self::Commit
            | Self::WritePeople
            | Self::DeletePeople => true,
        }
    }
}

/// What is put around each call.
pub trait Around: Send + Sync + 'static {
    fn around<T: Send>(
        &self,
        store: &MemoryStore,
        call: Call,
        answer: impl Future<Output = T> + Send,
    ) -> impl Future<Output = T> + Send;
}

pub struct Passing<A> {
    pub inner: Arc<MemoryStore>,
    pub around: A,
}

impl<A: Around> Passing<A> {
    pub fn new(inner: Arc<MemoryStore>, around: A) -> Self {
        Self { inner, around }
    }

    async fn pass<T: Send>(&self, call: Call, answer: impl Future<Output = T> + Send) -> T {
        self.around.around(&self.inner, call, answer).await
    }
}

#[async_trait]
impl<A: Around> JobStore for Passing<A> {
    async fn job_rows(&self) -> Result<JobRows, StoreError> {
        self.pass(Call::ReadJobs, self.inner.job_rows()).await
    }
    async fn job(&self, id: JobId) -> Result<Option<Job>, StoreError> {
        self.pass(Call::ReadJobs, self.inner.job(id)).await
    }
    async fn change_job(&self, next: &Job) -> Result<Conditional, StoreError> {
        self.pass(Call::ChangeJob, self.inner.change_job(next)).await
    }
    async fn delete_job(&self, id: JobId, revision: u64) -> Result<Conditional, StoreError> {
        self.pass(Call::ChangeJob, self.inner.delete_job(id, revision)).await
    }
}

#[async_trait]
impl<A: Around> Store for Passing<A> {
    async fn read_partition(
        &self,
        partition: PartitionRef,
    ) -> Result<Option<StoredPartition>, StoreError> {
        self.pass(Call::ReadPartition, self.inner.read_partition(partition)).await
    }
    async fn claim(
        &self,
        partition: PartitionRef,
        expected: Option<Epoch>,
        next: Epoch,
        owner: &str,
    ) -> Result<Conditional, StoreError> {
        self.pass(Call::Claim, self.inner.claim(partition, expected, next, owner)).await
    }
    async fn commit(
        &self,
        partition: PartitionRef,
        commit: &Commit,
    ) -> Result<Conditional, StoreError> {
        self.pass(Call::Commit, self.inner.commit(partition, commit)).await
    }
    async fn summaries(
        &self,
        generation: Generation,
        partitions: PartitionCount,
        budgets: &[BudgetId],
    ) -> Result<Vec<Result<Summary, Damaged>>, StoreError> {
        let answer = self.inner.summaries(generation, partitions, budgets);
        self.pass(Call::ReadPartition, answer).await
    }
    async fn write_people(
        &self,
        partition: PartitionRef,
        rows: &[PersonRow],
    ) -> Result<(), StoreError> {
        self.pass(Call::WritePeople, self.inner.write_people(partition, rows)).await
    }
    async fn read_people(
        &self,
        partition: PartitionRef,
        bucket: u8,
        row: &mut (dyn FnMut(PersonRow) + Send),
    ) -> Result<(), StoreError> {
        self.pass(Call::ReadPeople, self.inner.read_people(partition, bucket, row)).await
    }
    async fn person(
        &self,
        partition: PartitionRef,
        person: &PersonKey,
    ) -> Result<Option<PersonRow>, StoreError> {
        self.pass(Call::ReadPeople, self.inner.person(partition, person)).await
    }
    async fn state_position(
        &self,
        partition: PartitionRef,
    ) -> Result<Option<Position>, StoreError> {
        self.pass(Call::ReadPartition, self.inner.state_position(partition)).await
    }
    async fn roster(&self) -> Result<Option<Roster>, StoreError> {
        self.pass(Call::ReadRoster, self.inner.roster()).await
    }
    async fn change_roster(&self, next: &Roster) -> Result<Conditional, StoreError> {
        self.pass(Call::ChangeRoster, self.inner.change_roster(next)).await
    }
    async fn write_report(
        &self,
        partition: PartitionRef,
        report: &PartitionReport,
    ) -> Result<(), StoreError> {
        self.pass(Call::WriteReport, self.inner.write_report(partition, report)).await
    }
    async fn reports(
        &self,
        generation: Generation,
        partitions: PartitionCount,
    ) -> Result<Vec<Option<PartitionReport>>, StoreError> {
        self.pass(Call::ReadReports, self.inner.reports(generation, partitions)).await
    }
    async fn delete_people(&self, partition: PartitionRef) -> Result<(), StoreError> {
        self.pass(Call::DeletePeople, self.inner.delete_people(partition)).await
    }
}
