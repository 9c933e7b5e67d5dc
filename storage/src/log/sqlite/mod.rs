//! The embedded log: one SQLite file, opened by one process. Group commit makes it fast, `synchronous=FULL` durable.
//!
//! An append returns after its COMMIT was synced to the disk.

mod appender;
mod closed_budgets;
mod dead_letter_journal;
mod reader;
mod source;
mod submission_index;
mod tail;
mod trimmer;
mod writer;

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, TransactionBehavior};
use schemas::{Offset, PartitionCount, PartitionId, Position, RecordAddress, partition_for};
use uuid::Uuid;

use self::appender::{SqliteAppender, Write};
use self::reader::SqliteBounds;
use self::tail::Tail;
use self::writer::Writer;
use super::{
    AppendError, DeadLetter, DeadLetterWriter, LogBounds, LogIdentity, LogWriter, NewRecord,
};
use crate::private_files;
use crate::sqlite::{self, Durability, Schema};

pub use self::dead_letter_journal::SqliteDeadLetterJournal;
pub use self::reader::{SqliteReader, has_records};
pub use self::source::SqliteSource;
pub(crate) use self::trimmer::TrimConnection;
pub use self::trimmer::{SqliteLogTrimmer, SqliteTrimError};
pub use crate::sqlite::SqliteOpenError;

const SCHEMA: Schema = Schema {
    application_id: 0x5442_4c01,
    first_version: 2,
    migrations: &[r#"
        CREATE TABLE log (
            id INTEGER PRIMARY KEY CHECK (id = 1),
            partition_count INTEGER NOT NULL,
            cluster_id TEXT NOT NULL
        ) STRICT;
        CREATE TABLE probes (bytes BLOB NOT NULL) STRICT;
        CREATE TABLE records (
            partition INTEGER NOT NULL,
            "offset" INTEGER NOT NULL,
            key BLOB NOT NULL,
            value BLOB NOT NULL,
            PRIMARY KEY (partition, "offset")
        ) STRICT, WITHOUT ROWID;
        CREATE TABLE dead_letters (
            partition INTEGER NOT NULL,
            "offset" INTEGER NOT NULL,
            reason TEXT NOT NULL,
            key BLOB NOT NULL,
            value BLOB NOT NULL,
            put_at_ms INTEGER NOT NULL,
            PRIMARY KEY (partition, "offset")
        ) STRICT, WITHOUT ROWID;
        CREATE TABLE decisions (
            id INTEGER PRIMARY KEY,
            partition INTEGER NOT NULL,
            "offset" INTEGER NOT NULL,
            decision TEXT NOT NULL
        ) STRICT;
    "#],
    additions: &[],
};

/// Appends to the embedded log and its dead letter journal. One process at a time can open it.
pub struct SqliteLog {
    path: PathBuf,
    partitions: PartitionCount,
    identity: LogIdentity,
    writer: Writer,
    tail: Arc<Tail>,
    lock: Arc<File>,
}

impl SqliteLog {
    /// Opens the log, or creates it with this partition count.
    ///
    /// # Errors
    /// When another process has the log open, it has another partition count, or it cannot be read and written.
    pub fn open(path: &Path, partitions: PartitionCount) -> Result<Self, SqliteOpenError> {
        Self::open_bounded(path, partitions, u64::MAX)
    }

    /// Opens the log, or creates it. Refuses records once its file has `max_bytes`.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_bounded(
        path: &Path,
        partitions: PartitionCount,
        max_bytes: u64,
    ) -> Result<Self, SqliteOpenError> {
        let mut connection = sqlite::open(path, &SCHEMA, Durability::PowerLoss)?;
        let lock = Arc::new(lock(path)?);
        let unusable = |error: rusqlite::Error| SqliteOpenError::unusable(path, error);
        let (stored, cluster_id) =
            create_identity(&mut connection, partitions).map_err(unusable)?;
        if stored != partitions.get() {
            let path = path.to_owned();
            return Err(SqliteOpenError::PartitionCount { path, stored, wanted: partitions.get() });
        }
        let appender = SqliteAppender::new(connection, partitions)
            .map_err(unusable)?
            .with_max_bytes(max_bytes);
        let tail = Arc::new(Tail::new(appender.ends()));
        let writer = Writer::start(appender, Arc::clone(&tail))
            .map_err(|error| SqliteOpenError::unusable(path, error))?;
        let identity = LogIdentity { cluster_id, topic_id: String::new() };
        Ok(Self { path: path.to_owned(), partitions, identity, writer, tail, lock })
    }

    /// Opens a source, which this writer wakes. Each source is a group of its own, and owns every partition.
    ///
    /// # Errors
    /// When the file cannot be opened again.
    pub fn source(&self) -> Result<SqliteSource, SqliteOpenError> {
        Ok(SqliteSource {
            connection: sqlite::open(&self.path, &SCHEMA, Durability::PowerLoss)?,
            bounds: Arc::new(SqliteBounds::new(&self.path)),
            partitions: self.partitions,
            identity: self.identity.clone(),
            tail: Arc::clone(&self.tail),
            _lock: Arc::clone(&self.lock),
        })
    }
}

/// Locks the log against a second process: its appends would be safe, but would not wake this process's sources.
fn lock(path: &Path) -> Result<File, SqliteOpenError> {
    let mut name = path.as_os_str().to_owned();
    name.push("-lock");
    let file = private_files::open_file(Path::new(&name))
        .map_err(|error| SqliteOpenError::unusable(path, error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(SqliteOpenError::InUse { path: path.to_owned() }),
        Err(TryLockError::Error(error)) => Err(SqliteOpenError::unusable(path, error)),
    }
}

/// Returns the log's partition count and cluster id. Both are stored when the log is created.
fn create_identity(
    connection: &mut Connection,
    partitions: PartitionCount,
) -> rusqlite::Result<(u32, String)> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let stored = transaction
        .query_row("SELECT partition_count, cluster_id FROM log", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .optional()?;
    if let Some(stored) = stored {
        return Ok(stored);
    }
    let created = (partitions.get(), Uuid::new_v4().to_string());
    transaction.execute(
        "INSERT INTO log (id, partition_count, cluster_id) VALUES (1, ?1, ?2)",
        (created.0, &created.1),
    )?;
    transaction.commit()?;
    Ok(created)
}

#[async_trait]
impl LogWriter for SqliteLog {
    async fn append(&self, records: Vec<NewRecord>) -> Vec<Result<RecordAddress, AppendError>> {
        self.append_to(self.with_partitions(records)).await
    }

    async fn append_once_per_id(
        &self,
        records: Vec<NewRecord>,
    ) -> Vec<Result<RecordAddress, AppendError>> {
        let count = records.len();
        self.submit(Write::Submissions(self.with_partitions(records)), count).await
    }

    fn available(&self) -> Result<(), AppendError> {
        self.writer.available()
    }
}

impl SqliteLog {
    /// Appends records to given partitions, which need not match their keys. For tests of misplaced records.
    pub async fn append_to(
        &self,
        records: Vec<(PartitionId, NewRecord)>,
    ) -> Vec<Result<RecordAddress, AppendError>> {
        let count = records.len();
        self.submit(Write::Records(records), count).await
    }

    async fn submit(&self, write: Write, count: usize) -> Vec<Result<RecordAddress, AppendError>> {
        self.writer.submit(write).await.unwrap_or_else(|error| vec![Err(error); count])
    }

    fn with_partitions(&self, records: Vec<NewRecord>) -> Vec<(PartitionId, NewRecord)> {
        let with_partition =
            |record: NewRecord| (partition_for(&record.key, self.partitions), record);
        records.into_iter().map(with_partition).collect()
    }
}

#[async_trait]
impl DeadLetterWriter for SqliteLog {
    async fn append(&self, dead_letters: &[DeadLetter]) -> Result<(), AppendError> {
        self.writer.submit(Write::DeadLetters(dead_letters.to_vec())).await.map(drop)
    }
}

/// Returns the position after the partition's last record.
fn read_end(connection: &Connection, partition: u32) -> rusqlite::Result<Position> {
    connection
        .prepare_cached(r#"SELECT max("offset") FROM records WHERE partition = ?1"#)?
        .query_row([partition], |row| row.get::<_, Option<i64>>(0))
        .map(|last| last.map_or(Position::START, |last| Offset(last.cast_unsigned()).next()))
}

/// Returns the bounds of a partition's records.
fn read_bounds(connection: &Connection, partition: PartitionId) -> rusqlite::Result<LogBounds> {
    let high = read_end(connection, partition.0)?;
    let low = connection
        .prepare_cached(r#"SELECT min("offset") FROM records WHERE partition = ?1"#)?
        .query_row([partition.0], |row| row.get::<_, Option<i64>>(0))?
        .map_or(high, |first| Position(first.cast_unsigned()));
    Ok(LogBounds { low, high })
}
