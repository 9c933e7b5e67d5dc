//! Places that may be away when a process starts. Until such a place is opened (see [`until_there`]), whoever asks it
//! for something is answered at once that it is unavailable.
//!
//! [`until_there`]: crate::opening::until_there

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use schemas::job::{Job, JobId};
use schemas::{
    BudgetId, Generation, PartitionCount, PartitionReport, PersonKey, PersonRow, Position, Receipt,
    Roster,
};

use crate::jobs::{JobRows, JobStore};
use crate::log::{AppendError, LogWriter, NewRecord};
use crate::store::{
    Commit, Conditional, Damaged, Epoch, PartitionRef, Store, StoreError, StoredPartition, Summary,
};

const NOT_YET: &str = "it is not there yet";

/// A log that is opened later.
#[derive(Default)]
pub struct LateLog {
    opened: OnceLock<Arc<dyn LogWriter>>,
}

impl LateLog {
    /// Not there yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// It is there. Only the first one counts.
    pub fn set(&self, log: Arc<dyn LogWriter>) {
        let _ = self.opened.set(log);
    }

    fn log(&self) -> Result<&Arc<dyn LogWriter>, AppendError> {
        self.opened.get().ok_or_else(|| AppendError::Unavailable(NOT_YET.to_owned()))
    }
}

#[async_trait]
impl LogWriter for LateLog {
    async fn append(&self, records: Vec<NewRecord>) -> Vec<Result<Receipt, AppendError>> {
        match self.log() {
            Ok(log) => log.append(records).await,
            Err(error) => records.iter().map(|_| Err(error.clone())).collect(),
        }
    }

    fn available(&self) -> Result<(), AppendError> {
        self.log()?.available()
    }
}

/// A store that is opened later.
#[derive(Default)]
pub struct LateStore {
    opened: OnceLock<Arc<dyn Store>>,
}

impl LateStore {
    /// Not there yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// It is there. Only the first one counts.
    pub fn set(&self, store: Arc<dyn Store>) {
        let _ = self.opened.set(store);
    }

    fn store(&self) -> Result<&Arc<dyn Store>, StoreError> {
        self.opened.get().ok_or_else(|| StoreError::Unavailable(NOT_YET.to_owned()))
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

    async fn state_position(
        &self,
        partition: PartitionRef,
    ) -> Result<Option<Position>, StoreError> {
        self.store()?.state_position(partition).await
    }

    async fn roster(&self) -> Result<Option<Roster>, StoreError> {
        self.store()?.roster().await
    }

    async fn change_roster(&self, next: &Roster) -> Result<Conditional, StoreError> {
        self.store()?.change_roster(next).await
    }

    async fn write_report(
        &self,
        partition: PartitionRef,
        report: &PartitionReport,
    ) -> Result<(), StoreError> {
        self.store()?.write_report(partition, report).await
    }

    async fn reports(
        &self,
        generation: Generation,
        partitions: PartitionCount,
    ) -> Result<Vec<Option<PartitionReport>>, StoreError> {
        self.store()?.reports(generation, partitions).await
    }

    async fn delete_people(&self, partition: PartitionRef) -> Result<(), StoreError> {
        self.store()?.delete_people(partition).await
    }
}

/// Jobs whose place is opened later.
#[derive(Default)]
pub struct LateJobs {
    opened: OnceLock<Arc<dyn JobStore>>,
}

impl LateJobs {
    /// Not there yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// It is there. Only the first one counts.
    pub fn set(&self, jobs: Arc<dyn JobStore>) {
        let _ = self.opened.set(jobs);
    }

    fn get(&self) -> Result<&Arc<dyn JobStore>, StoreError> {
        self.opened.get().ok_or_else(|| StoreError::Unavailable(NOT_YET.to_owned()))
    }
}

#[async_trait]
impl JobStore for LateJobs {
    async fn job_rows(&self) -> Result<JobRows, StoreError> {
        self.get()?.job_rows().await
    }

    async fn job(&self, id: JobId) -> Result<Option<Job>, StoreError> {
        self.get()?.job(id).await
    }

    async fn change_job(&self, next: &Job) -> Result<Conditional, StoreError> {
        self.get()?.change_job(next).await
    }

    async fn delete_job(&self, id: JobId, revision: u64) -> Result<Conditional, StoreError> {
        self.get()?.delete_job(id, revision).await
    }
}
