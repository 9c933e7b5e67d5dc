//! Signals in an embedded SQLite file of their own, with a bounded number of rows.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, TransactionBehavior};
use schemas::{BudgetId, SIGNAL_MAX_BYTES, SIGNAL_RETENTION_MS, Signal};
use tokio::sync::{OnceCell, mpsc};

use super::{
    MAX_BATCH_SIGNALS, READ_AHEAD_BATCHES, SignalBatch, SignalEraser, SignalErasure, SignalQuery,
    SignalReader, SignalStream, SignalWriter,
};
use crate::log::reader_thread::spawn_reader;
use crate::log::{AppendError, ReadError};
use crate::sqlite::{self, Durability, Schema, SqliteOpenError, Worker};

/// Rows of the table: about 200 MB. Beyond it the oldest signals are deleted early.
const MAX_SIGNALS: u64 = 2_000_000;
/// Rows that one transaction deletes at most.
const MAX_DELETED_ROWS: u64 = 2_000;

const SCHEMA: Schema = Schema {
    application_id: 0x5442_4c04,
    first_version: 1,
    migrations: &[r#"
        CREATE TABLE signals (
            id INTEGER PRIMARY KEY,
            accepted_at_ms INTEGER NOT NULL,
            value BLOB NOT NULL
        ) STRICT;
        CREATE INDEX signals_by_time ON signals (accepted_at_ms);
    "#],
    additions: &[],
};

/// Appends signals to the file, which the first append creates.
pub struct SqliteSignalWriter {
    path: PathBuf,
    max_signals: u64,
    worker: OnceCell<Arc<Worker>>,
}

impl SqliteSignalWriter {
    /// Creates a writer without opening the file.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), max_signals: MAX_SIGNALS, worker: OnceCell::new() }
    }

    /// Sets the maximum number of rows, for tests.
    #[must_use]
    pub fn with_max_signals(self, max_signals: u64) -> Self {
        Self { max_signals, ..self }
    }

    async fn call(
        &self,
        call: impl FnOnce(&mut Connection) -> rusqlite::Result<bool> + Send + 'static,
    ) -> Result<bool, AppendError> {
        let open = async || {
            let path = self.path.clone();
            let opened = tokio::task::spawn_blocking(move || open_worker(&path)).await;
            opened.map_err(unavailable)?.map(Arc::new).map_err(unavailable)
        };
        let worker = self.worker.get_or_try_init(open).await?;
        worker.call(call).await.map_err(unavailable)?.map_err(unavailable)
    }
}

fn open_worker(path: &Path) -> Result<Worker, SqliteOpenError> {
    let connection = sqlite::open(path, &SCHEMA, Durability::ProcessDeath)?;
    // What has been deleted is overwritten: the retention is a promise.
    connection
        .pragma_update(None, "secure_delete", true)
        .map_err(|error| SqliteOpenError::unusable(path, error))?;
    Worker::start("signals-db", connection).map_err(|error| SqliteOpenError::unusable(path, error))
}

#[async_trait]
impl SignalWriter for SqliteSignalWriter {
    async fn append(&self, signals: &[Signal]) -> Result<(), AppendError> {
        let rows: Vec<(i64, Vec<u8>)> = signals
            .iter()
            .map(|signal| (signal.accepted_at_ms.cast_signed(), signal.encode()))
            .collect();
        let max_signals = self.max_signals;
        self.call(move |connection| insert(connection, &rows, max_signals)).await.map(drop)
    }

    async fn expire(&self, now_ms: u64) -> Result<bool, AppendError> {
        // Without a file there is nothing to delete, and no reason to create one.
        if self.worker.get().is_none() && !self.path.exists() {
            return Ok(false);
        }
        let oldest_ms = now_ms.saturating_sub(SIGNAL_RETENTION_MS);
        self.call(move |connection| delete_older(connection, oldest_ms)).await
    }
}

#[async_trait]
impl SignalEraser for SqliteSignalWriter {
    async fn erase(&self, budget: &BudgetId) -> Result<SignalErasure, AppendError> {
        // Without a file there is nothing to erase, and no reason to create one.
        if self.worker.get().is_some() || self.path.exists() {
            let budget = budget.clone();
            let is_busy = self.call(move |connection| erase(connection, &budget)).await?;
            if is_busy {
                return Err(unavailable("another process reads the signals for too long"));
            }
        }
        Ok(SignalErasure::Erased)
    }
}

/// Deletes the rows of a budget in bounded steps, and overwrites their copies in all files; returns whether another
/// process has the files in use.
fn erase(connection: &mut Connection, budget: &BudgetId) -> rusqlite::Result<bool> {
    let mut next = i64::MIN;
    loop {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut last = None;
        let mut of_budget: Vec<i64> = Vec::new();
        {
            let mut select = transaction.prepare_cached(
                "SELECT id, value FROM signals WHERE id >= ?1 ORDER BY id LIMIT ?2",
            )?;
            let mut rows = select.query((next, MAX_DELETED_ROWS.cast_signed()))?;
            while let Some(row) = rows.next()? {
                let id = row.get(0)?;
                last = Some(id);
                let signal = Signal::decode(row.get_ref(1)?.as_blob()?);
                let is_of_another = signal.is_ok_and(|signal| signal.budget != *budget);
                if !is_of_another {
                    of_budget.push(id);
                }
            }
        }
        for id in of_budget {
            transaction.prepare_cached("DELETE FROM signals WHERE id = ?1")?.execute([id])?;
        }
        transaction.commit()?;
        match last.and_then(|last: i64| last.checked_add(1)) {
            Some(after) => next = after,
            None => break,
        }
    }
    // Moved cells leave copies in other pages.
    connection.execute_batch("VACUUM")?;
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))
}

/// Inserts rows, and deletes the oldest ones beyond the maximum, in one transaction.
fn insert(
    connection: &mut Connection,
    rows: &[(i64, Vec<u8>)],
    max_signals: u64,
) -> rusqlite::Result<bool> {
    let transaction = connection.transaction()?;
    {
        let mut insert = transaction
            .prepare_cached("INSERT INTO signals (accepted_at_ms, value) VALUES (?1, ?2)")?;
        for row in rows {
            insert.execute((row.0, &row.1))?;
        }
        let last: Option<i64> =
            transaction.query_row("SELECT max(id) FROM signals", [], |row| row.get(0))?;
        let surplus = last.unwrap_or_default().saturating_sub_unsigned(max_signals);
        transaction
            .prepare_cached(
                "DELETE FROM signals WHERE id IN (SELECT id FROM signals WHERE id <= ?1 ORDER BY id LIMIT ?2)",
            )?
            .execute((surplus, MAX_DELETED_ROWS.max(rows.len() as u64).cast_signed()))?;
    }
    transaction.commit()?;
    Ok(true)
}

/// Deletes some rows of acceptances before a time; returns whether there may be more.
fn delete_older(connection: &mut Connection, oldest_ms: u64) -> rusqlite::Result<bool> {
    let deleted = connection
        .prepare_cached(
            "DELETE FROM signals WHERE id IN \
             (SELECT id FROM signals WHERE accepted_at_ms < ?1 ORDER BY accepted_at_ms LIMIT ?2)",
        )?
        .execute((oldest_ms.cast_signed(), MAX_DELETED_ROWS.cast_signed()))?;
    Ok(deleted as u64 >= MAX_DELETED_ROWS)
}

/// Reads the file of signals. Another process may append to it.
pub struct SqliteSignalReader {
    path: PathBuf,
}

impl SqliteSignalReader {
    /// Creates a reader without opening the file.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }
}

impl SignalReader for SqliteSignalReader {
    fn read(&self, query: SignalQuery) -> SignalStream {
        let (path, query) = (self.path.clone(), query.within_retention());
        spawn_reader(READ_AHEAD_BATCHES, move |batches| read(&path, &query, batches))
    }
}

fn read(
    path: &Path,
    query: &SignalQuery,
    batches: &mpsc::Sender<Result<SignalBatch, ReadError>>,
) -> Result<(), ReadError> {
    // No signal has been appended ever.
    if !path.exists() {
        return Ok(());
    }
    let connection = sqlite::open_to_read(path, &SCHEMA).map_err(ReadError::unavailable)?;
    let Some((first, last)) =
        bounds(&connection, query.accepted_ms.start).map_err(ReadError::unavailable)?
    else {
        return Ok(());
    };
    let total = last.abs_diff(first) + 1;
    let mut next = first;
    // In steps: a long read would keep the write-ahead log from being truncated.
    while next <= last && !batches.is_closed() {
        let signals = read_step(&connection, next, last, query).map_err(ReadError::unavailable)?;
        next = next.saturating_add_unsigned(MAX_BATCH_SIGNALS as u64);
        let done = next.abs_diff(first).min(total);
        let _ = batches.blocking_send(Ok(SignalBatch { signals, done, total }));
    }
    Ok(())
}

/// Returns the ids of the first row since a time and of the last row.
fn bounds(connection: &Connection, from_ms: u64) -> rusqlite::Result<Option<(i64, i64)>> {
    let bounds = connection
        .query_row(
            "SELECT min(id), (SELECT max(id) FROM signals) FROM signals WHERE accepted_at_ms >= ?1",
            [i64::try_from(from_ms).unwrap_or(i64::MAX)],
            |row| Ok((row.get::<_, Option<i64>>(0)?, row.get::<_, Option<i64>>(1)?)),
        )
        .optional()?;
    Ok(bounds.and_then(|(first, last)| Some((first?, last?))))
}

fn read_step(
    connection: &Connection,
    next: i64,
    last: i64,
    query: &SignalQuery,
) -> rusqlite::Result<Vec<Signal>> {
    let mut select = connection.prepare_cached(
        "SELECT value FROM signals WHERE id >= ?1 AND id < ?2 AND id <= ?3 AND length(value) <= ?4 ORDER BY id",
    )?;
    let until = next.saturating_add_unsigned(MAX_BATCH_SIGNALS as u64);
    let mut rows = select.query((next, until, last, SIGNAL_MAX_BYTES as i64))?;
    let mut signals = Vec::new();
    while let Some(row) = rows.next()? {
        let signal = Signal::decode(row.get_ref(0)?.as_blob()?).ok();
        signals.extend(signal.filter(|signal| query.wants(signal)));
    }
    Ok(signals)
}

fn unavailable(error: impl ToString) -> AppendError {
    AppendError::Unavailable(error.to_string())
}
