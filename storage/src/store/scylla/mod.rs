//! The store in ScyllaDB, or in Cassandra 5, over CQL. The tables are `schemas::cql`'s.
//!
//! There are two kinds of writes, never mixed in one table: lightweight transactions on totals, generations and jobs,
//! whose unknown outcomes the caller settles, and plain idempotent writes: on person rows with the offset as timestamp,
//! and on history points, whose values never change. The module `session` defines how each is sent.

mod generations;
mod history;
mod jobs;
mod migrate;
mod people;
mod retirement;
mod session;
mod totals;

use std::ops::Range;
use std::time::Duration;

use async_trait::async_trait;
use backon::{ConstantBuilder, Retryable};
use schemas::job::{Job, JobId};
use schemas::{
    BudgetId, Generation, GenerationRegistry, HistoryInstant, HistoryPoint, HistoryStep,
    PartitionCount, PartitionReport, PersonKey, PersonRow, Position,
};
use scylla::client::session::Session;
use tokio::time::timeout;

use self::generations::GenerationStatements;
use self::history::HistoryStatements;
use self::jobs::JobStatements;
use self::people::PersonStatements;
use self::retirement::RetirementStatements;
use self::totals::TotalsStatements;
use super::{
    BudgetSummary, CasOutcome, Checkpoints, Commit, DamagedTotals, Epoch, Generations, Histories,
    KnownPartition, PartitionRef, People, StoreError, StoredPartition, retired,
};
use crate::jobs::{JobRows, JobStore};

pub use self::session::{KeyspaceFault, KeyspaceName, ScyllaConfig, ScyllaCredentials};

/// The store in ScyllaDB or Cassandra.
pub struct ScyllaStore {
    session: Session,
    totals: TotalsStatements,
    people: PersonStatements,
    history: HistoryStatements,
    retirement: RetirementStatements,
    generations: GenerationStatements,
    jobs: JobStatements,
}

/// Whether connecting may change the schema.
#[derive(Debug, Clone, Copy)]
enum SchemaMode {
    Migrate,
    CheckOnly,
}

const CONNECT_RETRY_DELAY: Duration = Duration::from_millis(300);

impl ScyllaStore {
    /// Connects, migrates the tables and prepares all statements. Creates the keyspace if it does not exist. Several
    /// processes may do so at once.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when this takes longer than [`ScyllaConfig::connect_timeout`]: try again.
    /// [`StoreError::Corrupt`] when a retry cannot help: the schema is newer than this program, or the datacenter is
    /// ambiguous.
    pub async fn connect(config: &ScyllaConfig) -> Result<Self, StoreError> {
        Self::connect_as(config, SchemaMode::Migrate).await
    }

    /// Connects to an existing keyspace without changing its schema.
    ///
    /// # Errors
    /// As [`ScyllaStore::connect`]; also [`StoreError::Corrupt`] when the keyspace does not exist or a migration is
    /// pending.
    pub async fn connect_to_existing(config: &ScyllaConfig) -> Result<Self, StoreError> {
        Self::connect_as(config, SchemaMode::CheckOnly).await
    }

    async fn connect_as(config: &ScyllaConfig, mode: SchemaMode) -> Result<Self, StoreError> {
        let mut last = "no node responded".to_owned();
        // A table that another process has created is listed a moment before it can be used: a retry finds it.
        let connecting = (|| Self::connect_and_prepare(config, mode))
            .retry(ConstantBuilder::new().with_delay(CONNECT_RETRY_DELAY).without_max_times())
            .when(|error| matches!(error, StoreError::Unavailable(_)))
            .notify(|error, _| {
                if let StoreError::Unavailable(reason) = error {
                    last.clone_from(reason);
                }
            });
        let connected = timeout(config.connect_timeout, connecting).await;
        connected.unwrap_or_else(|_| {
            let limit = config.connect_timeout.as_millis();
            Err(StoreError::Unavailable(format!(
                "not connected and migrated within {limit} ms: {last}"
            )))
        })
    }

    async fn connect_and_prepare(
        config: &ScyllaConfig,
        mode: SchemaMode,
    ) -> Result<Self, StoreError> {
        let session = session::open(config, mode).await?;
        let keyspace = &config.keyspace;
        for series in [migrate::REQUIRED, migrate::ADDITIONAL] {
            match mode {
                SchemaMode::Migrate => migrate::migrate(&session, keyspace, &series).await?,
                SchemaMode::CheckOnly => migrate::check(&session, keyspace, &series).await?,
            }
        }
        let totals = TotalsStatements::prepare(&session).await?;
        let people = PersonStatements::prepare(&session).await?;
        let history = HistoryStatements::prepare(&session).await?;
        let retirement = RetirementStatements::prepare(&session).await?;
        let generations = GenerationStatements::prepare(&session).await?;
        let jobs = JobStatements::prepare(&session).await?;
        Ok(Self { session, totals, people, history, retirement, generations, jobs })
    }
}

#[async_trait]
impl Checkpoints for ScyllaStore {
    async fn read_partition(
        &self,
        partition: PartitionRef,
    ) -> Result<Option<StoredPartition>, StoreError> {
        self.totals.read_partition(&self.session, partition).await
    }

    async fn claim(
        &self,
        partition: PartitionRef,
        expected: Option<Epoch>,
        next: Epoch,
        owner: &str,
    ) -> Result<CasOutcome, StoreError> {
        let session = &self.session;
        let outcome = self.totals.claim(session, partition, expected, next, owner).await?;
        if outcome == CasOutcome::Refused && self.retirement.is_fenced(session, partition).await? {
            return Err(retired(partition));
        }
        Ok(outcome)
    }

    async fn commit(
        &self,
        partition: PartitionRef,
        commit: &Commit,
    ) -> Result<CasOutcome, StoreError> {
        self.totals.commit(&self.session, partition, commit).await
    }

    async fn summaries(
        &self,
        generation: Generation,
        partitions: PartitionCount,
        budgets: &[BudgetId],
    ) -> Result<Vec<Result<BudgetSummary, DamagedTotals>>, StoreError> {
        self.totals.summaries(&self.session, generation, partitions, budgets).await
    }

    async fn rows_position(&self, partition: PartitionRef) -> Result<Option<Position>, StoreError> {
        self.totals.rows_position(&self.session, partition).await
    }

    async fn epoch(&self, partition: PartitionRef) -> Result<Option<Epoch>, StoreError> {
        self.totals.epoch(&self.session, partition).await
    }
}

#[async_trait]
impl People for ScyllaStore {
    async fn write_people(
        &self,
        partition: PartitionRef,
        rows: &[PersonRow],
    ) -> Result<(), StoreError> {
        self.people.write(&self.session, partition, rows).await
    }

    async fn read_people(
        &self,
        partition: PartitionRef,
        bucket: u8,
        row: &mut (dyn FnMut(PersonRow) + Send),
    ) -> Result<(), StoreError> {
        self.people.read_bucket(&self.session, partition, bucket, row).await
    }

    async fn person(
        &self,
        partition: PartitionRef,
        person: &PersonKey,
    ) -> Result<Option<PersonRow>, StoreError> {
        self.people.read_one(&self.session, partition, person).await
    }
}

#[async_trait]
impl Histories for ScyllaStore {
    async fn write_history(
        &self,
        partition: PartitionRef,
        points: &[(BudgetId, HistoryPoint)],
        now_ms: u64,
    ) -> Result<(), StoreError> {
        self.history.write(&self.session, partition, points, now_ms).await
    }

    async fn history(
        &self,
        partition: PartitionRef,
        budget: &BudgetId,
        step: HistoryStep,
        instants: Range<HistoryInstant>,
    ) -> Result<Vec<HistoryPoint>, StoreError> {
        self.history.read(&self.session, partition, budget, step, instants).await
    }

    async fn scan_history(
        &self,
        partition: PartitionRef,
        step: HistoryStep,
        point: &mut (dyn FnMut(BudgetId, HistoryPoint) + Send),
    ) -> Result<(), StoreError> {
        self.history.scan(&self.session, partition, step, point).await
    }
}

#[async_trait]
impl Generations for ScyllaStore {
    async fn registry(&self) -> Result<Option<GenerationRegistry>, StoreError> {
        self.generations.registry(&self.session).await
    }

    async fn change_registry(&self, next: &GenerationRegistry) -> Result<CasOutcome, StoreError> {
        self.generations.change(&self.session, next).await
    }

    async fn known_partitions(&self) -> Result<Vec<KnownPartition>, StoreError> {
        self.retirement.known_partitions(&self.session).await
    }

    async fn retire_partition(&self, partition: PartitionRef) -> Result<(), StoreError> {
        self.retirement.fence(&self.session, partition).await?;
        self.people.delete(&self.session, partition).await?;
        self.history.delete(&self.session, partition).await?;
        self.retirement.delete_totals(&self.session, partition).await
    }

    async fn write_report(
        &self,
        partition: PartitionRef,
        report: &PartitionReport,
    ) -> Result<(), StoreError> {
        self.generations.write_report(&self.session, partition, report).await
    }

    async fn reports(
        &self,
        generation: Generation,
        partitions: PartitionCount,
    ) -> Result<Vec<Option<PartitionReport>>, StoreError> {
        self.generations.reports(&self.session, generation, partitions).await
    }
}

#[async_trait]
impl JobStore for ScyllaStore {
    async fn job_rows(&self) -> Result<JobRows, StoreError> {
        self.jobs.all(&self.session).await
    }

    async fn job(&self, id: JobId) -> Result<Option<Job>, StoreError> {
        self.jobs.one(&self.session, id).await
    }

    async fn change_job(&self, next: &Job) -> Result<CasOutcome, StoreError> {
        self.jobs.change(&self.session, next).await
    }

    async fn delete_job(&self, id: JobId, revision: u64) -> Result<CasOutcome, StoreError> {
        self.jobs.delete(&self.session, id, revision).await
    }
}
