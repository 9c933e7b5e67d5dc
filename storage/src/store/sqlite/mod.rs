//! The store in one SQLite file. The tables mean what those of `schemas/cql/` mean.
//!
//! `synchronous=NORMAL` is enough here. All that is stored is a function of a prefix of the log, and says which; the
//! log itself syncs every record before it is acknowledged. A power cut may take back the latest transactions, but
//! WAL recovers up to the last whole one, so that epochs, positions, totals and people's rows all return to one
//! earlier moment together. The owner then folds from that position again and comes to the same values. Until it has
//! caught up, answers may be older than before the cut; a reader with a receipt is told to wait, as always. Jobs return to
//! the same moment as what they did. A process that dies takes nothing back.
//!
//! One thread writes and one reads, so that reading people does not hold up a commit.

mod generations;
mod jobs;
mod partitions;
mod people;

use std::path::Path;

use async_trait::async_trait;
use rusqlite::Connection;
use schemas::job::{Job, JobId};
use schemas::{
    BudgetId, Generation, PartitionCount, PartitionReport, PersonKey, PersonRow, Position, Roster,
    bucket_of,
};

use super::{
    Commit, Conditional, Damaged, Epoch, PartitionRef, Store, StoreError, StoredPartition, Summary,
};
use crate::jobs::{JobRows, JobStore};
use crate::sqlite::{self, Durability, Schema, Worker, WorkerGone, is_damage};

pub use crate::sqlite::OpenError;

const SCHEMA: Schema = Schema {
    application_id: 0x5442_5301,
    version: 3,
    tables: r#"
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
    "#,
};

/// The store in one SQLite file.
pub struct SqliteStore {
    writer: Worker,
    reader: Worker,
}

impl SqliteStore {
    /// Opens the store, and creates it if there is none.
    ///
    /// # Errors
    /// When the file is not such a store, or cannot be read and written.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let worker = |name| {
            let connection = sqlite::open(path, &SCHEMA, Durability::ProcessDeath)?;
            Worker::start(name, connection).map_err(|error| OpenError::unusable(path, error))
        };
        Ok(Self { writer: worker("store-writer")?, reader: worker("store-reader")? })
    }

    /// Opens a store that is there.
    ///
    /// # Errors
    /// When there is none; else as [`SqliteStore::open`].
    pub fn open_existing(path: &Path) -> Result<Self, OpenError> {
        sqlite::open_to_read(path, &SCHEMA)?;
        Self::open(path)
    }
}

/// Why a statement came to nothing.
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

async fn on<T: Send + 'static>(
    worker: &Worker,
    job: impl FnOnce(&mut Connection) -> Result<T, Fault> + Send + 'static,
) -> Result<T, StoreError> {
    Ok(worker.call(job).await??)
}

#[async_trait]
impl Store for SqliteStore {
    async fn read_partition(
        &self,
        partition: PartitionRef,
    ) -> Result<Option<StoredPartition>, StoreError> {
        // On the writer: behind every write whose caller has stopped waiting.
        on(&self.writer, move |connection| partitions::read(connection, partition)).await
    }

    async fn claim(
        &self,
        partition: PartitionRef,
        expected: Option<Epoch>,
        next: Epoch,
        owner: &str,
    ) -> Result<Conditional, StoreError> {
        let owner = owner.to_owned();
        let claim = move |connection: &mut Connection| {
            partitions::claim(connection, partition, expected, next, &owner)
        };
        on(&self.writer, claim).await
    }

    async fn commit(
        &self,
        partition: PartitionRef,
        commit: &Commit,
    ) -> Result<Conditional, StoreError> {
        let commit = commit.clone();
        on(&self.writer, move |connection| partitions::commit(connection, partition, &commit)).await
    }

    async fn summaries(
        &self,
        generation: Generation,
        count: PartitionCount,
        budgets: &[BudgetId],
    ) -> Result<Vec<Result<Summary, Damaged>>, StoreError> {
        let budgets = budgets.to_vec();
        let read = move |connection: &mut Connection| {
            let summary = |budget| partitions::summary(connection, generation, count, budget);
            budgets.iter().map(summary).collect()
        };
        on(&self.reader, read).await
    }

    async fn write_people(
        &self,
        partition: PartitionRef,
        rows: &[PersonRow],
    ) -> Result<(), StoreError> {
        for rows in rows.chunks(people::TRANSACTION_ROWS) {
            let rows = rows.to_vec();
            on(&self.writer, move |connection| people::write(connection, partition, &rows)).await?;
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
            let page = on(&self.reader, page).await?;
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
        on(&self.reader, move |connection| people::read(connection, partition, bucket, person))
            .await
    }

    async fn state_position(
        &self,
        partition: PartitionRef,
    ) -> Result<Option<Position>, StoreError> {
        on(&self.reader, move |connection| partitions::state_position(connection, partition)).await
    }

    async fn roster(&self) -> Result<Option<Roster>, StoreError> {
        on(&self.reader, |connection| generations::roster(connection)).await
    }

    async fn change_roster(&self, next: &Roster) -> Result<Conditional, StoreError> {
        let next = next.clone();
        on(&self.writer, move |connection| generations::change(connection, &next)).await
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
        on(&self.writer, write).await
    }

    async fn reports(
        &self,
        generation: Generation,
        partitions: PartitionCount,
    ) -> Result<Vec<Option<PartitionReport>>, StoreError> {
        let read = move |connection: &mut Connection| {
            generations::reports(connection, generation, partitions)
        };
        on(&self.reader, read).await
    }

    async fn delete_people(&self, partition: PartitionRef) -> Result<(), StoreError> {
        on(&self.writer, move |connection| people::delete(connection, partition)).await
    }
}

#[async_trait]
impl JobStore for SqliteStore {
    async fn job_rows(&self) -> Result<JobRows, StoreError> {
        on(&self.reader, |connection| jobs::all(connection)).await
    }

    async fn job(&self, id: JobId) -> Result<Option<Job>, StoreError> {
        on(&self.reader, move |connection| jobs::one(connection, id)).await
    }

    async fn change_job(&self, next: &Job) -> Result<Conditional, StoreError> {
        let next = next.clone();
        on(&self.writer, move |connection| jobs::change(connection, &next)).await
    }

    async fn delete_job(&self, id: JobId, revision: u64) -> Result<Conditional, StoreError> {
        on(&self.writer, move |connection| jobs::delete(connection, id, revision)).await
    }
}
