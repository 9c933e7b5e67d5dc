//! The store in one SQLite file. The tables mean what those of `schemas/cql/0001_initial.cql` mean.
//!
//! `synchronous=NORMAL` is enough here. All that is stored is a function of a prefix of the log, and says which; the
//! log itself syncs every record before it is acknowledged. A power cut may take back the latest transactions, but
//! WAL recovers up to the last whole one, so that epochs, positions, totals and people's rows all return to one
//! earlier moment together. The owner then folds from that position again and comes to the same values. Until it has
//! caught up, answers may be older than before the cut; a reader with a receipt is told to wait, as always. A process
//! that dies takes nothing back.
//!
//! One thread writes and one reads, so that reading people does not hold up a commit.

mod partitions;
mod people;

use std::path::Path;

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, TransactionBehavior};
use schemas::{BudgetId, Generation, PartitionCount, PersonKey, PersonRow, Position, bucket_of};

use super::{
    Commit, Conditional, Damaged, Epoch, GenerationRecord, PartitionRef, Store, StoreError,
    StoredPartition, Summary,
};
use crate::sqlite::{self, Durability, Schema, Worker, WorkerGone, is_damage};

pub use crate::sqlite::OpenError;

const SCHEMA: Schema = Schema {
    application_id: 0x5442_5301,
    version: 1,
    tables: r#"
        CREATE TABLE current_generation (
            id INTEGER PRIMARY KEY CHECK (id = 1),
            generation INTEGER NOT NULL
        ) STRICT;
        CREATE TABLE generations (
            generation INTEGER PRIMARY KEY,
            topic TEXT NOT NULL,
            partition_count INTEGER NOT NULL
        ) STRICT;
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

    async fn current_generation(&self) -> Result<Option<GenerationRecord>, StoreError> {
        on(&self.reader, |connection| current_generation(connection)).await
    }

    async fn begin_first_generation(
        &self,
        first: &GenerationRecord,
    ) -> Result<GenerationRecord, StoreError> {
        let first = first.clone();
        on(&self.writer, move |connection| begin_first_generation(connection, first)).await
    }
}

fn current_generation(connection: &Connection) -> Result<Option<GenerationRecord>, Fault> {
    let stored = connection
        .query_row(
            "SELECT generation, topic, partition_count
             FROM current_generation JOIN generations USING (generation)",
            [],
            |row| Ok((row.get(0)?, row.get(1)?, row.get::<_, u32>(2)?)),
        )
        .optional()?;
    let Some((generation, topic, count)) = stored else { return Ok(None) };
    let partitions = PartitionCount::new(count.into())
        .map_err(|fault| Fault::Damage(format!("the partition count {fault}")))?;
    Ok(Some(GenerationRecord { generation: Generation(generation), topic, partitions }))
}

fn begin_first_generation(
    connection: &mut Connection,
    first: GenerationRecord,
) -> Result<GenerationRecord, Fault> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    if let Some(current) = current_generation(&transaction)? {
        return Ok(current);
    }
    let generation = first.generation.0;
    transaction.execute(
        "INSERT INTO generations (generation, topic, partition_count) VALUES (?1, ?2, ?3)",
        (generation, &first.topic, first.partitions.get()),
    )?;
    transaction
        .execute("INSERT INTO current_generation (id, generation) VALUES (1, ?1)", [generation])?;
    transaction.commit()?;
    Ok(first)
}
