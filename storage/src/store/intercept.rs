//! A decorator around a store, for deferred opening, fault injection and simulation.
//!
//! An [`Interceptor`] sees each operation, and may delay it, fail it before or after it takes effect, or substitute the
//! outcome of a conditional write.

use std::ops::{Deref, Range};

use async_trait::async_trait;
use schemas::job::{Job, JobId};
use schemas::{
    BudgetId, Generation, GenerationRegistry, HistoryInstant, HistoryPoint, HistoryStep,
    PartitionCount, PartitionReport, PersonKey, PersonRow, Position,
};

use super::{
    BudgetSummary, CasOutcome, Checkpoints, Commit, DamagedTotals, Epoch, Generations, Histories,
    KnownPartition, PartitionRef, People, Store, StoreError, StoredPartition,
};
use crate::jobs::{JobRows, JobStore};

/// One operation of a store, with the arguments that interceptors decide by.
#[derive(Debug, Clone, Copy)]
pub enum StoreOperation<'a> {
    /// [`Checkpoints::read_partition`].
    ReadPartition(PartitionRef),
    /// [`Checkpoints::claim`].
    Claim(PartitionRef),
    /// [`Checkpoints::commit`].
    Commit(PartitionRef, &'a Commit),
    /// [`Checkpoints::summaries`].
    ReadSummaries(Generation),
    /// [`Checkpoints::rows_position`].
    ReadRowsPosition(PartitionRef),
    /// [`People::write_people`].
    WritePeople(PartitionRef, &'a [PersonRow]),
    /// [`People::read_people`] of a bucket.
    ReadPeople(PartitionRef, u8),
    /// [`People::person`].
    ReadPerson(PartitionRef),
    /// [`Histories::write_history`].
    WriteHistory(PartitionRef, &'a [(BudgetId, HistoryPoint)]),
    /// [`Histories::history`] and [`Histories::scan_history`].
    ReadHistory(PartitionRef),
    /// [`Generations::registry`].
    ReadRegistry,
    /// [`Generations::change_registry`].
    ChangeRegistry(&'a GenerationRegistry),
    /// [`Generations::known_partitions`].
    ListPartitions,
    /// [`Generations::retire_partition`].
    RetirePartition(PartitionRef),
    /// [`Generations::write_report`].
    WriteReport(PartitionRef),
    /// [`Generations::reports`].
    ReadReports(Generation),
    /// [`JobStore::job_rows`] and [`JobStore::job`].
    ReadJobs,
    /// [`JobStore::change_job`].
    ChangeJob(&'a Job),
    /// [`JobStore::delete_job`].
    DeleteJob(JobId),
}

impl StoreOperation<'_> {
    /// Whether the operation changes the store.
    pub fn is_write(&self) -> bool {
        match self {
            Self::ReadPartition(_)
            | Self::ReadSummaries(_)
            | Self::ReadRowsPosition(_)
            | Self::ReadPeople(..)
            | Self::ReadPerson(_)
            | Self::ReadHistory(_)
            | Self::ReadRegistry
            | Self::ListPartitions
            | Self::ReadReports(_)
            | Self::ReadJobs => false,
            Self::Claim(_)
            | Self::Commit(..)
            | Self::WritePeople(..)
            | Self::WriteHistory(..)
            | Self::ChangeRegistry(_)
            | Self::RetirePartition(_)
            | Self::WriteReport(_)
            | Self::ChangeJob(_)
            | Self::DeleteJob(_) => true,
        }
    }
}

/// Decides what happens to the operations of an [`InterceptedStore`].
pub trait Interceptor: Send + Sync + 'static {
    /// Returns the inner store.
    ///
    /// # Errors
    /// When there is none yet: the operation fails with this error.
    fn store(&self) -> Result<&dyn Store, StoreError>;

    /// Returns the inner job store. By default there is none.
    ///
    /// # Errors
    /// When there is none.
    fn job_store(&self) -> Result<&dyn JobStore, StoreError> {
        Err(StoreError::Unavailable("this store has no jobs".to_owned()))
    }

    /// Runs an operation. By default it runs unchanged. An implementation may delay `call`, drop it, or replace its
    /// result by an error.
    fn intercept<T: Send>(
        &self,
        operation: StoreOperation<'_>,
        call: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> impl Future<Output = Result<T, StoreError>> + Send {
        let _ = operation;
        call
    }

    /// Runs a conditional write, whose outcome may also be substituted. By default as [`intercept`](Self::intercept).
    fn intercept_cas(
        &self,
        operation: StoreOperation<'_>,
        call: impl Future<Output = Result<CasOutcome, StoreError>> + Send,
    ) -> impl Future<Output = Result<CasOutcome, StoreError>> + Send {
        self.intercept(operation, call)
    }
}

/// A store whose operations all pass an [`Interceptor`]. Dereferences to it, so that tests can control it.
#[derive(Debug, Default)]
pub struct InterceptedStore<I>(I);

impl<I> InterceptedStore<I> {
    /// Creates a store around an interceptor, which owns the inner store.
    pub fn with(interceptor: I) -> Self {
        Self(interceptor)
    }
}

impl<I: Default> InterceptedStore<I> {
    /// Creates a store around a default interceptor.
    pub fn new() -> Self {
        Self::default()
    }
}

impl<I> Deref for InterceptedStore<I> {
    type Target = I;

    fn deref(&self) -> &I {
        &self.0
    }
}

#[async_trait]
impl<I: Interceptor> Checkpoints for InterceptedStore<I> {
    async fn read_partition(
        &self,
        partition: PartitionRef,
    ) -> Result<Option<StoredPartition>, StoreError> {
        let call = self.store()?.read_partition(partition);
        self.intercept(StoreOperation::ReadPartition(partition), call).await
    }

    async fn claim(
        &self,
        partition: PartitionRef,
        expected: Option<Epoch>,
        next: Epoch,
        owner: &str,
    ) -> Result<CasOutcome, StoreError> {
        let call = self.store()?.claim(partition, expected, next, owner);
        self.intercept_cas(StoreOperation::Claim(partition), call).await
    }

    async fn commit(
        &self,
        partition: PartitionRef,
        commit: &Commit,
    ) -> Result<CasOutcome, StoreError> {
        let call = self.store()?.commit(partition, commit);
        self.intercept_cas(StoreOperation::Commit(partition, commit), call).await
    }

    async fn summaries(
        &self,
        generation: Generation,
        partitions: PartitionCount,
        budgets: &[BudgetId],
    ) -> Result<Vec<Result<BudgetSummary, DamagedTotals>>, StoreError> {
        let call = self.store()?.summaries(generation, partitions, budgets);
        self.intercept(StoreOperation::ReadSummaries(generation), call).await
    }

    async fn rows_position(&self, partition: PartitionRef) -> Result<Option<Position>, StoreError> {
        let call = self.store()?.rows_position(partition);
        self.intercept(StoreOperation::ReadRowsPosition(partition), call).await
    }
}

#[async_trait]
impl<I: Interceptor> People for InterceptedStore<I> {
    async fn write_people(
        &self,
        partition: PartitionRef,
        rows: &[PersonRow],
    ) -> Result<(), StoreError> {
        let call = self.store()?.write_people(partition, rows);
        self.intercept(StoreOperation::WritePeople(partition, rows), call).await
    }

    async fn read_people(
        &self,
        partition: PartitionRef,
        bucket: u8,
        row: &mut (dyn FnMut(PersonRow) + Send),
    ) -> Result<(), StoreError> {
        let call = self.store()?.read_people(partition, bucket, row);
        self.intercept(StoreOperation::ReadPeople(partition, bucket), call).await
    }

    async fn person(
        &self,
        partition: PartitionRef,
        person: &PersonKey,
    ) -> Result<Option<PersonRow>, StoreError> {
        let call = self.store()?.person(partition, person);
        self.intercept(StoreOperation::ReadPerson(partition), call).await
    }
}

#[async_trait]
impl<I: Interceptor> Histories for InterceptedStore<I> {
    async fn write_history(
        &self,
        partition: PartitionRef,
        points: &[(BudgetId, HistoryPoint)],
        now_ms: u64,
    ) -> Result<(), StoreError> {
        let call = self.store()?.write_history(partition, points, now_ms);
        self.intercept(StoreOperation::WriteHistory(partition, points), call).await
    }

    async fn history(
        &self,
        partition: PartitionRef,
        budget: &BudgetId,
        step: HistoryStep,
        instants: Range<HistoryInstant>,
    ) -> Result<Vec<HistoryPoint>, StoreError> {
        let call = self.store()?.history(partition, budget, step, instants);
        self.intercept(StoreOperation::ReadHistory(partition), call).await
    }

    async fn scan_history(
        &self,
        partition: PartitionRef,
        step: HistoryStep,
        point: &mut (dyn FnMut(BudgetId, HistoryPoint) + Send),
    ) -> Result<(), StoreError> {
        let call = self.store()?.scan_history(partition, step, point);
        self.intercept(StoreOperation::ReadHistory(partition), call).await
    }
}

#[async_trait]
impl<I: Interceptor> Generations for InterceptedStore<I> {
    async fn registry(&self) -> Result<Option<GenerationRegistry>, StoreError> {
        let call = self.store()?.registry();
        self.intercept(StoreOperation::ReadRegistry, call).await
    }

    async fn change_registry(&self, next: &GenerationRegistry) -> Result<CasOutcome, StoreError> {
        let call = self.store()?.change_registry(next);
        self.intercept_cas(StoreOperation::ChangeRegistry(next), call).await
    }

    async fn known_partitions(&self) -> Result<Vec<KnownPartition>, StoreError> {
        let call = self.store()?.known_partitions();
        self.intercept(StoreOperation::ListPartitions, call).await
    }

    async fn retire_partition(&self, partition: PartitionRef) -> Result<(), StoreError> {
        let call = self.store()?.retire_partition(partition);
        self.intercept(StoreOperation::RetirePartition(partition), call).await
    }

    async fn write_report(
        &self,
        partition: PartitionRef,
        report: &PartitionReport,
    ) -> Result<(), StoreError> {
        let call = self.store()?.write_report(partition, report);
        self.intercept(StoreOperation::WriteReport(partition), call).await
    }

    async fn reports(
        &self,
        generation: Generation,
        partitions: PartitionCount,
    ) -> Result<Vec<Option<PartitionReport>>, StoreError> {
        let call = self.store()?.reports(generation, partitions);
        self.intercept(StoreOperation::ReadReports(generation), call).await
    }
}

#[async_trait]
impl<I: Interceptor> JobStore for InterceptedStore<I> {
    async fn job_rows(&self) -> Result<JobRows, StoreError> {
        let call = self.job_store()?.job_rows();
        self.intercept(StoreOperation::ReadJobs, call).await
    }

    async fn job(&self, id: JobId) -> Result<Option<Job>, StoreError> {
        let call = self.job_store()?.job(id);
        self.intercept(StoreOperation::ReadJobs, call).await
    }

    async fn change_job(&self, next: &Job) -> Result<CasOutcome, StoreError> {
        let call = self.job_store()?.change_job(next);
        self.intercept_cas(StoreOperation::ChangeJob(next), call).await
    }

    async fn delete_job(&self, id: JobId, revision: u64) -> Result<CasOutcome, StoreError> {
        let call = self.job_store()?.delete_job(id, revision);
        self.intercept_cas(StoreOperation::DeleteJob(id), call).await
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::memory::MemoryStore;
    use super::*;
    use schemas::{LogRef, PartitionId};

    /// Fails each write after it took effect.
    #[derive(Default)]
    struct LostResponses(MemoryStore);

    impl Interceptor for LostResponses {
        fn store(&self) -> Result<&dyn Store, StoreError> {
            Ok(&self.0)
        }

        async fn intercept<T: Send>(
            &self,
            operation: StoreOperation<'_>,
            call: impl Future<Output = Result<T, StoreError>> + Send,
        ) -> Result<T, StoreError> {
            let result = call.await;
            if operation.is_write() {
                return Err(StoreError::Unavailable("the response is lost".into()));
            }
            result
        }
    }

    #[tokio::test]
    async fn an_interceptor_can_fail_a_write_that_took_effect() {
        let store = InterceptedStore::<LostResponses>::new();
        let partitions = PartitionCount::new(1).unwrap();
        let registry = GenerationRegistry::first(LogRef::first("submissions", partitions));
        assert!(store.change_registry(&registry).await.is_err());
        assert_eq!(store.registry().await, Ok(Some(registry)));
        let partition = PartitionRef { generation: Generation::FIRST, partition: PartitionId(0) };
        assert!(store.claim(partition, None, Epoch(1), "owner").await.is_err());
        assert_eq!(store.read_partition(partition).await.unwrap().unwrap().epoch, Epoch(1));
        assert!(store.job_rows().await.is_err(), "this interceptor has no job store");
    }
}
