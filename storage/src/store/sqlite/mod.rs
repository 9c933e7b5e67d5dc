//! The store in one SQLite file. The tables correspond to those of `schemas/cql/`.
//!
//! `synchronous=NORMAL` is sufficient. All stored data is derived from a prefix of the log, whose position is stored
//! with it, and the log syncs every record before it acknowledges it. A power loss may roll back the latest
//! transactions, but WAL recovers up to the last complete one, so epochs, positions, totals, person rows and jobs
//! return to the same earlier state together. The owner then folds from that position again, with the same results.
//! Until it has caught up, reads may return older totals than before; a reader with a receipt waits, as always. The
//! death of the process loses nothing.
//!
//! One thread writes and one reads, so that reading people does not delay commits.

mod generations;
mod history;
mod jobs;
mod partitions;
mod people;

use std::ops::Range;
use std::path::Path;

use async_trait::async_trait;
use rusqlite::{Connection, TransactionBehavior};
use schemas::job::{Job, JobId};
use schemas::{
    BudgetId, Generation, GenerationRegistry, HistoryInstant, HistoryPoint, HistoryStep,
    PartitionCount, PartitionReport, PersonKey, PersonRow, Position, bucket_of,
};

use super::{
    BudgetSummary, CasOutcome, Checkpoints, Commit, DamagedTotals, Epoch, Generations, Histories,
    KnownPartition, PartitionRef, People, StoreError, StoredPartition, retired,
};
use crate::jobs::{JobRows, JobStore};
use crate::sqlite::{self, Durability, Schema, Worker, WorkerGone, is_damage};

pub use crate::sqlite::SqliteOpenError;

const SCHEMA: Schema = Schema {
    application_id: 0x5442_5301,
    first_version: 3,
    migrations: &[r#"
        CREATE TABLE roster (
            id INTEGER PRIMARY KEY CHECK (id = 1),
            revision INTEGER NOT NULL,
            roster TEXT NOT NULL
        ) STRICT;
        CREATE TABLE partition_reports (
            generation INTEGER NOT NULL,
            partition INTEGER NOT NULL,
            report TEXT NOT NULL,
            PRIMARY KEY (generation, partition)
        ) STRICT, WITHOUT ROWID;
        CREATE TABLE jobs (
            id BLOB PRIMARY KEY,
            revision INTEGER NOT NULL,
            job TEXT NOT NULL
        ) STRICT, WITHOUT ROWID;
        CREATE TABLE deleted_people (
            generation INTEGER NOT NULL,
            partition INTEGER NOT NULL,
            PRIMARY KEY (generation, partition)
        ) STRICT, WITHOUT ROWID;
        CREATE TABLE partitions (
            generation INTEGER NOT NULL,
            partition INTEGER NOT NULL,
            epoch INTEGER NOT NULL,
            owner TEXT NOT NULL,
            position INTEGER NOT NULL DEFAULT 0,
            state_position INTEGER NOT NULL DEFAULT 0,
            cluster_id TEXT,
            topic_id TEXT,
            last_offset INTEGER,
            last_fingerprint INTEGER,
            applied INTEGER NOT NULL DEFAULT 0,
            duplicates INTEGER NOT NULL DEFAULT 0,
            dead_lettered INTEGER NOT NULL DEFAULT 0,
            PRIMARY KEY (generation, partition)
        ) STRICT, WITHOUT ROWID;
        CREATE TABLE totals (
            generation INTEGER NOT NULL,
            partition INTEGER NOT NULL,
            budget TEXT NOT NULL,
            budget_position INTEGER NOT NULL,
            people INTEGER NOT NULL,
            updated_at_ms INTEGER NOT NULL,
            sums TEXT NOT NULL,
            distribution BLOB NOT NULL,
            PRIMARY KEY (generation, partition, budget)
        ) STRICT;
        CREATE TABLE allocations (
            generation INTEGER NOT NULL,
            partition INTEGER NOT NULL,
            bucket INTEGER NOT NULL,
            person BLOB NOT NULL,
            "offset" INTEGER NOT NULL,
            state BLOB NOT NULL,
            PRIMARY KEY (generation, partition, bucket, person)
        ) STRICT, WITHOUT ROWID;
    "#],
    additions: &[history::ADDITION],
};

/// The store in one SQLite file.
pub struct SqliteStore {
    writer: Worker,
    reader: Worker,
}

impl SqliteStore {
    /// Opens the store, and creates it if it does not exist.
    ///
    /// # Errors
    /// When the file is not a store, or cannot be read and written.
    pub fn open(path: &Path) -> Result<Self, SqliteOpenError> {
        let worker = |name| {
            let mut connection = sqlite::open(path, &SCHEMA, Durability::ProcessDeath)?;
            partitions::delete_rest_of_retired(&mut connection)
                .map_err(|error| SqliteOpenError::unusable(path, error))?;
            Worker::start(name, connection).map_err(|error| SqliteOpenError::unusable(path, error))
        };
        Ok(Self { writer: worker("store-writer")?, reader: worker("store-reader")? })
    }

    /// Opens an existing store.
    ///
    /// # Errors
    /// When it does not exist, and as [`SqliteStore::open`].
    pub fn open_existing(path: &Path) -> Result<Self, SqliteOpenError> {
        sqlite::open_to_read(path, &SCHEMA)?;
        Self::open(path)
    }
}

/// Makes every commit of an existing store survive a power loss: a commit that syncs the write-ahead log syncs what is
/// in front of it. The files are not synced by themselves, since closing them would release SQLite's locks.
pub(crate) fn sync_to_disk(path: &Path) -> Result<(), SqliteOpenError> {
    sqlite::open_to_read(path, &SCHEMA)?;
    let mut connection = sqlite::open(path, &SCHEMA, Durability::PowerLoss)?;
    let unusable = |error| SqliteOpenError::unusable(path, error);
    let transaction =
        connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(unusable)?;
    let version: i64 =
        transaction.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(unusable)?;
    transaction.pragma_update(None, "user_version", version).map_err(unusable)?;
    transaction.commit().map_err(unusable)
}

/// Why a statement failed.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    #[error("{0}")]
    Damage(String),
}

impl From<Fault> for StoreError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Damage(what) => Self::Corrupt(what),
            Fault::Sqlite(error) if is_damage(&error) => Self::Corrupt(error.to_string()),
            Fault::Sqlite(error) => Self::Unavailable(error.to_string()),
        }
    }
}

impl From<WorkerGone> for StoreError {
    fn from(gone: WorkerGone) -> Self {
        Self::Unavailable(gone.to_string())
    }
}

async fn run<T: Send + 'static>(
    worker: &Worker,
    call: impl FnOnce(&mut Connection) -> Result<T, Fault> + Send + 'static,
) -> Result<T, StoreError> {
    Ok(worker.call(call).await??)
}

/// Returns the outcome of a conditional write of one row, which changed this number of rows.
fn outcome(changed: usize) -> CasOutcome {
    if changed == 1 { CasOutcome::Applied } else { CasOutcome::Refused }
}

#[async_trait]
impl Checkpoints for SqliteStore {
    async fn read_partition(
        &self,
        partition: PartitionRef,
    ) -> Result<Option<StoredPartition>, StoreError> {
        // On the writer thread: after every write whose caller has stopped waiting.
        run(&self.writer, move |connection| partitions::read(connection, partition)).await
    }

    async fn claim(
        &self,
        partition: PartitionRef,
        expected: Option<Epoch>,
        next: Epoch,
        owner: &str,
    ) -> Result<CasOutcome, StoreError> {
        let owner = owner.to_owned();
        let claim = move |connection: &mut Connection| {
            partitions::claim(connection, partition, expected, next, &owner)
        };
        run(&self.writer, claim).await?.ok_or_else(|| retired(partition))
    }

    async fn commit(
        &self,
        partition: PartitionRef,
        commit: &Commit,
    ) -> Result<CasOutcome, StoreError> {
        let commit = commit.clone();
        run(&self.writer, move |connection| partitions::commit(connection, partition, &commit))
            .await
    }

    async fn summaries(
        &self,
        generation: Generation,
        count: PartitionCount,
        budgets: &[BudgetId],
    ) -> Result<Vec<Result<BudgetSummary, DamagedTotals>>, StoreError> {
        let budgets = budgets.to_vec();
        let read = move |connection: &mut Connection| {
            let summary = |budget| partitions::summary(connection, generation, count, budget);
            budgets.iter().map(summary).collect()
        };
        run(&self.reader, read).await
    }

    async fn rows_position(&self, partition: PartitionRef) -> Result<Option<Position>, StoreError> {
        run(&self.reader, move |connection| partitions::rows_position(connection, partition)).await
    }

    async fn epoch(&self, partition: PartitionRef) -> Result<Option<Epoch>, StoreError> {
        run(&self.reader, move |connection| partitions::epoch(connection, partition)).await
    }
}

#[async_trait]
impl People for SqliteStore {
    async fn write_people(
        &self,
        partition: PartitionRef,
        rows: &[PersonRow],
    ) -> Result<(), StoreError> {
        for rows in rows.chunks(people::TRANSACTION_ROWS) {
            let rows = rows.to_vec();
            run(&self.writer, move |connection| people::write(connection, partition, &rows))
                .await?;
        }
        Ok(())
    }

    async fn read_people(
        &self,
        partition: PartitionRef,
        bucket: u8,
        row: &mut (dyn FnMut(PersonRow) + Send),
    ) -> Result<(), StoreError> {
        let mut after = None;
        loop {
            let page = move |connection: &mut Connection| {
                people::read_page(connection, partition, bucket, after)
            };
            let page = run(&self.reader, page).await?;
            let last = page.last().map(|row| row.person);
            page.into_iter().for_each(&mut *row);
            if last.is_none() {
                return Ok(());
            }
            after = last;
        }
    }

    async fn person(
        &self,
        partition: PartitionRef,
        person: &PersonKey,
    ) -> Result<Option<PersonRow>, StoreError> {
        let (person, bucket) = (*person, bucket_of(person));
        run(&self.reader, move |connection| people::read(connection, partition, bucket, person))
            .await
    }
}

#[async_trait]
impl Histories for SqliteStore {
    async fn write_history(
        &self,
        partition: PartitionRef,
        points: &[(BudgetId, HistoryPoint)],
        now_ms: u64,
    ) -> Result<(), StoreError> {
        let points = points.to_vec();
        let write = move |connection: &mut Connection| {
            history::write(connection, partition, &points, now_ms)
        };
        run(&self.writer, write).await
    }

    async fn history(
        &self,
        partition: PartitionRef,
        budget: &BudgetId,
        step: HistoryStep,
        instants: Range<HistoryInstant>,
    ) -> Result<Vec<HistoryPoint>, StoreError> {
        let budget = budget.clone();
        let read = move |connection: &mut Connection| {
            history::read(connection, partition, &budget, step, &instants)
        };
        run(&self.reader, read).await
    }

    async fn scan_history(
        &self,
        partition: PartitionRef,
        step: HistoryStep,
        point: &mut (dyn FnMut(BudgetId, HistoryPoint) + Send),
    ) -> Result<(), StoreError> {
        let mut after: Option<history::PointKey> = None;
        loop {
            let page = move |connection: &mut Connection| {
                history::read_page(connection, partition, step, after.as_ref())
            };
            let page = run(&self.reader, page).await?;
            let Some((budget, last)) = page.last() else { return Ok(()) };
            after = Some((budget.clone(), last.first));
            page.into_iter().for_each(|(budget, found)| point(budget, found));
        }
    }
}

#[async_trait]
impl Generations for SqliteStore {
    async fn registry(&self) -> Result<Option<GenerationRegistry>, StoreError> {
        run(&self.reader, |connection| generations::registry(connection)).await
    }

    async fn change_registry(&self, next: &GenerationRegistry) -> Result<CasOutcome, StoreError> {
        let next = next.clone();
        run(&self.writer, move |connection| generations::change(connection, &next)).await
    }

    async fn known_partitions(&self) -> Result<Vec<KnownPartition>, StoreError> {
        run(&self.writer, |connection| partitions::known(connection)).await
    }

    async fn retire_partition(&self, partition: PartitionRef) -> Result<(), StoreError> {
        run(&self.writer, move |connection| partitions::retire(connection, partition)).await
    }

    async fn write_report(
        &self,
        partition: PartitionRef,
        report: &PartitionReport,
    ) -> Result<(), StoreError> {
        let report = report.to_json();
        let write = move |connection: &mut Connection| {
            generations::write_report(connection, partition, &report)
        };
        run(&self.writer, write).await
    }

    async fn reports(
        &self,
        generation: Generation,
        partitions: PartitionCount,
    ) -> Result<Vec<Option<PartitionReport>>, StoreError> {
        let read = move |connection: &mut Connection| {
            generations::reports(connection, generation, partitions)
        };
        run(&self.reader, read).await
    }
}

#[async_trait]
impl JobStore for SqliteStore {
    async fn job_rows(&self) -> Result<JobRows, StoreError> {
        run(&self.reader, |connection| jobs::all(connection)).await
    }

    async fn job(&self, id: JobId) -> Result<Option<Job>, StoreError> {
        run(&self.reader, move |connection| jobs::one(connection, id)).await
    }

    async fn change_job(&self, next: &Job) -> Result<CasOutcome, StoreError> {
        let next = next.clone();
        run(&self.writer, move |connection| jobs::change(connection, &next)).await
    }

    async fn delete_job(&self, id: JobId, revision: u64) -> Result<CasOutcome, StoreError> {
        run(&self.writer, move |connection| jobs::delete(connection, id, revision)).await
    }
}
