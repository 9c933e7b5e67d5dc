//! The store in ScyllaDB, or in Cassandra 5, over CQL. The tables are `schemas::cql`'s.
//!
//! Two kinds of writes, never mixed in one table: conditional ones (lightweight transactions) on totals,
//! generations and jobs, whose outcome the caller settles itself, and plain ones with the offset as their timestamp on
//! people's rows, which may be repeated at will. See the module `session` for how each is sent.

mod generations;
mod jobs;
mod migrate;
mod people;
mod session;
mod totals;

use std::time::Duration;

use async_trait::async_trait;
use schemas::job::{Job, JobId};
use schemas::{
    BudgetId, Generation, PartitionCount, PartitionReport, PersonKey, PersonRow, Position, Roster,
};
use scylla::client::session::Session;
use tokio::time::timeout;

use self::generations::Generations;
use self::jobs::Jobs;
use self::people::People;
use self::totals::Totals;
use super::{
    Commit, Conditional, Damaged, Epoch, PartitionRef, Store, StoreError, StoredPartition, Summary,
};
use crate::jobs::{JobRows, JobStore};

pub use self::session::{KeyspaceFault, KeyspaceName, ScyllaConfig, ScyllaCredentials};

/// The store in ScyllaDB or Cassandra.
pub struct ScyllaStore {
    session: Session,
    totals: Totals,
    people: People,
    generations: Generations,
    jobs: Jobs,
}

/// What is done about a schema that is not as this program expects it.
#[derive(Debug, Clone, Copy)]
enum Schema {
    BringUpToDate,
    LeaveAsItIs,
}

const CONNECT_PAUSE: Duration = Duration::from_millis(300);

impl ScyllaStore {
    /// Connects, makes the keyspace if it is absent, brings its tables up to date and prepares every statement. Any
    /// number of processes may do so at once.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when this does not come to an end within [`ScyllaConfig::connect_timeout`]: try
    /// again. [`StoreError::Corrupt`] when trying again cannot help: the schema is newer than this program, or the
    /// datacenter cannot be told.
    pub async fn connect(config: &ScyllaConfig) -> Result<Self, StoreError> {
        Self::connect_as(config, Schema::BringUpToDate).await
    }

    /// Connects to what is there, and changes nothing of its schema.
    ///
    /// # Errors
    /// As [`ScyllaStore::connect`]; also [`StoreError::Corrupt`] when the keyspace is not there or its tables are not up
    /// to date.
    pub async fn connect_to_existing(config: &ScyllaConfig) -> Result<Self, StoreError> {
        Self::connect_as(config, Schema::LeaveAsItIs).await
    }

    async fn connect_as(config: &ScyllaConfig, schema: Schema) -> Result<Self, StoreError> {
        let mut last = "no node answered".to_owned();
        let connecting = async {
            loop {
                match Self::connect_and_prepare(config, schema).await {
                    // A table that another process has just made is listed a moment before it can be used.
                    Err(StoreError::Unavailable(reason)) => last = reason,
                    settled => return settled,
                }
                tokio::time::sleep(CONNECT_PAUSE).await;
            }
        };
        let connected = timeout(config.connect_timeout, connecting).await;
        connected.unwrap_or_else(|_| {
            let limit = config.connect_timeout.as_millis();
            Err(StoreError::Unavailable(format!(
                "not connected and up to date within {limit} ms: {last}"
            )))
        })
    }

    async fn connect_and_prepare(
        config: &ScyllaConfig,
        schema: Schema,
    ) -> Result<Self, StoreError> {
        let session = session::open(config, schema).await?;
        let (keyspace, migrations) = (&config.keyspace, schemas::cql::MIGRATIONS);
        match schema {
            Schema::BringUpToDate => migrate::migrate(&session, keyspace, migrations).await?,
            Schema::LeaveAsItIs => migrate::check(&session, keyspace, migrations).await?,
        }
        let totals = Totals::prepare(&session).await?;
        let people = People::prepare(&session).await?;
        let generations = Generations::prepare(&session).await?;
        let jobs = Jobs::prepare(&session).await?;
        Ok(Self { session, totals, people, generations, jobs })
    }
}

#[async_trait]
impl Store for ScyllaStore {
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
    ) -> Result<Conditional, StoreError> {
        self.totals.claim(&self.session, partition, expected, next, owner).await
    }

    async fn commit(
        &self,
        partition: PartitionRef,
        commit: &Commit,
    ) -> Result<Conditional, StoreError> {
        self.totals.commit(&self.session, partition, commit).await
    }

    async fn summaries(
        &self,
        generation: Generation,
        partitions: PartitionCount,
        budgets: &[BudgetId],
    ) -> Result<Vec<Result<Summary, Damaged>>, StoreError> {
        self.totals.summaries(&self.session, generation, partitions, budgets).await
    }

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

    async fn state_position(
        &self,
        partition: PartitionRef,
    ) -> Result<Option<Position>, StoreError> {
        self.totals.state_position(&self.session, partition).await
    }

    async fn roster(&self) -> Result<Option<Roster>, StoreError> {
        self.generations.roster(&self.session).await
    }

    async fn change_roster(&self, next: &Roster) -> Result<Conditional, StoreError> {
        self.generations.change(&self.session, next).await
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

    async fn delete_people(&self, partition: PartitionRef) -> Result<(), StoreError> {
        self.people.delete(&self.session, partition).await
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

    async fn change_job(&self, next: &Job) -> Result<Conditional, StoreError> {
        self.jobs.change(&self.session, next).await
    }

    async fn delete_job(&self, id: JobId, revision: u64) -> Result<Conditional, StoreError> {
        self.jobs.delete(&self.session, id, revision).await
    }
}
