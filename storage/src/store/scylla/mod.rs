//! The store on ScyllaDB, or on Cassandra 5, which speaks the same CQL.
//!
//! `totals` is written by lightweight transactions only, `allocations` by plain writes with their own timestamps only:
//! mixing the two in one table would let a plain write overtake a conditional one.

mod generations;
mod migrate;
mod people;
mod session;
mod totals;

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use schemas::{BudgetId, BudgetTotals, Generation, PartitionCount, PersonKey, PersonRow};
use scylla::client::session::Session;
use scylla::response::query_result::QueryResult;

use self::generations::Generations;
use self::people::People;
use self::totals::Totals;
use super::{
    Commit, Conditional, Epoch, GenerationRecord, PartitionRef, Store, StoreError, StoredPartition,
};

/// How to reach ScyllaDB.
#[derive(Debug, Clone)]
pub struct ScyllaConfig {
    /// `host:port` of nodes to begin with.
    pub nodes: Vec<String>,
    /// The keyspace; created if absent.
    pub keyspace: String,
    /// Copies of each row in a keyspace that is created.
    pub replication_factor: u32,
    /// The local datacenter; that of the first node to answer, if not given.
    pub datacenter: Option<String>,
    /// The user, if the nodes ask for one.
    pub user: Option<String>,
    /// A file with the user's password.
    pub password_file: Option<PathBuf>,
    /// How long one request may take.
    pub request_timeout: Duration,
}

/// A session with everything prepared.
pub struct ScyllaStore {
    session: Session,
    totals: Totals,
    people: People,
    generations: Generations,
}

impl ScyllaStore {
    /// Connects, and brings the keyspace and its tables up to this code's schema.
    ///
    /// # Errors
    /// When no node answers in time, or the schema is newer than this code.
    pub async fn connect(config: &ScyllaConfig) -> Result<Self, StoreError> {
        let session = session::open(config).await?;
        migrate::migrate(&session).await?;
        Ok(Self {
            totals: Totals::prepare(&session).await?,
            people: People::prepare(&session).await?,
            generations: Generations::prepare(&session).await?,
            session,
        })
    }
}

/// Whatever went wrong on the way: the outcome is open.
fn unavailable(error: impl std::fmt::Display) -> StoreError {
    StoreError::Unavailable(error.to_string())
}

/// Whether a conditional write happened. ScyllaDB answers a conditional batch with a row for each statement, Cassandra
/// with one; the first row's `[applied]` holds for the whole.
fn applied(result: QueryResult) -> Result<Conditional, StoreError> {
    let rows = result.into_rows_result().map_err(unavailable)?;
    let column =
        rows.column_specs().get_by_name("[applied]").map(|(index, _)| index).ok_or_else(|| {
            StoreError::Corrupt("a conditional write was answered without `[applied]`".into())
        })?;
    let row: scylla::value::Row = rows.first_row().map_err(unavailable)?;
    match row.columns.get(column) {
        Some(Some(scylla::value::CqlValue::Boolean(true))) => Ok(Conditional::Applied),
        _ => Ok(Conditional::Refused),
    }
}

#[async_trait]
impl Store for ScyllaStore {
    async fn read_partition(
        &self,
        partition: PartitionRef,
    ) -> Result<Option<StoredPartition>, StoreError> {
        self.totals.read(&self.session, partition).await
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

    async fn budget_totals(
        &self,
        generation: Generation,
        partitions: PartitionCount,
        budget: &BudgetId,
    ) -> Result<Vec<Option<BudgetTotals>>, StoreError> {
        self.totals.of_budget(&self.session, generation, partitions, budget).await
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

    async fn current_generation(&self) -> Result<Option<GenerationRecord>, StoreError> {
        self.generations.current(&self.session).await
    }

    async fn begin_first_generation(
        &self,
        first: &GenerationRecord,
    ) -> Result<GenerationRecord, StoreError> {
        self.generations.begin_first(&self.session, first).await
    }
}
