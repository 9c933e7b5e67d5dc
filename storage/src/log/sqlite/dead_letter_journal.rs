//! Reads the embedded dead letter journal and appends decisions. Another process may have the log open.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use rusqlite::{Connection, Row};
use schemas::{LogNumber, Offset, PartitionId, RecordAddress};
use tokio::sync::mpsc;

use super::{SCHEMA, SqliteOpenError};
use crate::log::reader_thread::spawn_reader;
use crate::log::{
    AppendError, DeadLetterJournal, DeadLetterMeta, Decision, JournalEntry, ReadError,
};
use crate::sqlite::{self, Durability};

/// Entries that may wait for the receiver.
const STREAM_CAPACITY: usize = 1_000;

/// The embedded log's tables of dead letters and decisions.
pub struct SqliteDeadLetterJournal {
    path: PathBuf,
}

impl SqliteDeadLetterJournal {
    /// Opens the journal of an existing log.
    ///
    /// # Errors
    /// When the log does not exist.
    pub fn open(path: &Path) -> Result<Self, SqliteOpenError> {
        sqlite::open_to_read(path, &SCHEMA)?;
        Ok(Self { path: path.to_owned() })
    }
}

#[async_trait]
impl DeadLetterJournal for SqliteDeadLetterJournal {
    fn entries(&self) -> mpsc::Receiver<Result<JournalEntry, ReadError>> {
        let path = self.path.clone();
        spawn_reader(STREAM_CAPACITY, move |entries| read_all(&path, entries))
    }

    async fn decide(&self, letter: RecordAddress, decision: Decision) -> Result<(), AppendError> {
        let path = self.path.clone();
        let inserted = tokio::task::spawn_blocking(move || {
            let json = serde_json::to_string(&decision).map_err(unavailable)?;
            let connection =
                sqlite::open(&path, &SCHEMA, Durability::PowerLoss).map_err(unavailable)?;
            let insert =
                r#"INSERT INTO decisions (partition, "offset", decision) VALUES (?1, ?2, ?3)"#;
            let row = (letter.partition.0, letter.offset.0.cast_signed(), json);
            connection.execute(insert, row).map_err(unknown)
        });
        inserted.await.map_err(unknown)?.map(drop)
    }
}

fn read_all(
    path: &Path,
    entries: &mpsc::Sender<Result<JournalEntry, ReadError>>,
) -> Result<(), ReadError> {
    let connection = sqlite::open_to_read(path, &SCHEMA).map_err(ReadError::unavailable)?;
    let letters = r#"SELECT partition, "offset", reason, length(key), length(value), put_at_ms
                     FROM dead_letters ORDER BY partition, "offset""#;
    send(&connection, letters, entries, |row| {
        let meta = DeadLetterMeta {
            reason: row.get(2)?,
            key_bytes: row.get::<_, i64>(3)?.cast_unsigned(),
            value_bytes: row.get::<_, i64>(4)?.cast_unsigned(),
            appended_at_ms: row.get::<_, i64>(5)?.cast_unsigned(),
        };
        Ok(Some(JournalEntry::DeadLetter(source(row)?, meta)))
    })?;
    let decisions = r#"SELECT partition, "offset", decision FROM decisions ORDER BY id"#;
    send(&connection, decisions, entries, |row| {
        let decision = Decision::parse(row.get_ref(2)?.as_str()?);
        Ok(Some(JournalEntry::Decision(source(row)?, decision)))
    })
}

fn send(
    connection: &Connection,
    query: &str,
    entries: &mpsc::Sender<Result<JournalEntry, ReadError>>,
    entry: impl Fn(&Row<'_>) -> rusqlite::Result<Option<JournalEntry>>,
) -> Result<(), ReadError> {
    let mut select = connection.prepare(query).map_err(ReadError::unavailable)?;
    let mut rows = select.query(()).map_err(ReadError::unavailable)?;
    while !entries.is_closed()
        && let Some(row) = rows.next().map_err(ReadError::unavailable)?
    {
        let entry = entry(row).map_err(ReadError::unavailable)?.unwrap_or(JournalEntry::Foreign);
        let _ = entries.blocking_send(Ok(entry));
    }
    Ok(())
}

/// Returns the record's address in a row's first two columns.
fn source(row: &Row<'_>) -> rusqlite::Result<RecordAddress> {
    let offset: i64 = row.get(1)?;
    Ok(RecordAddress {
        log: LogNumber::FIRST,
        partition: PartitionId(row.get(0)?),
        offset: Offset(offset.cast_unsigned()),
    })
}

fn unavailable(error: impl ToString) -> AppendError {
    AppendError::Unavailable(error.to_string())
}

fn unknown(error: impl ToString) -> AppendError {
    AppendError::Unknown(error.to_string())
}
