//! The book of dead letters, beside the process that has the log open.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use rusqlite::{Connection, Row};
use schemas::{LogNumber, Offset, PartitionId, Receipt};
use tokio::sync::mpsc;

use super::{OpenError, SCHEMA};
use crate::log::background::in_background;
use crate::log::{AppendError, Decision, Entry, LetterBook, PutAway, ReadError};
use crate::sqlite::{self, Durability};

const ENTRIES_AHEAD: usize = 1_000;

/// The tables of dead letters, for operators.
pub struct SqliteLetterBook {
    path: PathBuf,
}

impl SqliteLetterBook {
    /// Of a log that is there.
    ///
    /// # Errors
    /// When there is none.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        sqlite::open_to_read(path, &SCHEMA)?;
        Ok(Self { path: path.to_owned() })
    }
}

#[async_trait]
impl LetterBook for SqliteLetterBook {
    fn entries(&self) -> mpsc::Receiver<Result<Entry, ReadError>> {
        let path = self.path.clone();
        in_background(ENTRIES_AHEAD, move |entries| read_all(&path, entries))
    }

    async fn decide(&self, letter: Receipt, decision: Decision) -> Result<(), AppendError> {
        let path = self.path.clone();
        let decided = tokio::task::spawn_blocking(move || {
            let text = serde_json::to_string(&decision).map_err(refused)?;
            let connection =
                sqlite::open(&path, &SCHEMA, Durability::PowerLoss).map_err(refused)?;
            let insert =
                r#"INSERT INTO decisions (partition, "offset", decision) VALUES (?1, ?2, ?3)"#;
            let place = (letter.partition.0, letter.offset.0.cast_signed());
            connection.execute(insert, (place.0, place.1, text)).map_err(unknown)
        });
        decided.await.map_err(unknown)?.map(drop)
    }
}

fn read_all(
    path: &Path,
    entries: &mpsc::Sender<Result<Entry, ReadError>>,
) -> Result<(), ReadError> {
    let connection = sqlite::open_to_read(path, &SCHEMA).map_err(ReadError::unavailable)?;
    let letters = r#"SELECT partition, "offset", reason, length(key), length(value), put_at_ms
                     FROM dead_letters ORDER BY partition, "offset""#;
    send(&connection, letters, entries, |row| {
        let put_away = PutAway {
            reason: row.get(2)?,
            key_bytes: row.get::<_, i64>(3)?.cast_unsigned(),
            value_bytes: row.get::<_, i64>(4)?.cast_unsigned(),
            put_at_ms: row.get::<_, i64>(5)?.cast_unsigned(),
        };
        Ok(Some(Entry::Letter(place(row)?, put_away)))
    })?;
    let decisions = r#"SELECT partition, "offset", decision FROM decisions ORDER BY id"#;
    send(&connection, decisions, entries, |row| {
        let decision: Option<Decision> = serde_json::from_str(row.get_ref(2)?.as_str()?).ok();
        decision.map(|decision| Ok(Entry::Decided(place(row)?, decision))).transpose()
    })
}

fn send(
    connection: &Connection,
    query: &str,
    entries: &mpsc::Sender<Result<Entry, ReadError>>,
    entry: impl Fn(&Row<'_>) -> rusqlite::Result<Option<Entry>>,
) -> Result<(), ReadError> {
    let mut select = connection.prepare(query).map_err(ReadError::unavailable)?;
    let mut rows = select.query(()).map_err(ReadError::unavailable)?;
    while !entries.is_closed()
        && let Some(row) = rows.next().map_err(ReadError::unavailable)?
    {
        let entry = entry(row).map_err(ReadError::unavailable)?.unwrap_or(Entry::Foreign);
        let _ = entries.blocking_send(Ok(entry));
    }
    Ok(())
}

fn place(row: &Row<'_>) -> rusqlite::Result<Receipt> {
    let offset: i64 = row.get(1)?;
    Ok(Receipt {
        log: LogNumber::FIRST,
        partition: PartitionId(row.get(0)?),
        offset: Offset(offset.cast_unsigned()),
    })
}

fn refused(error: impl ToString) -> AppendError {
    AppendError::Unavailable(error.to_string())
}

fn unknown(error: impl ToString) -> AppendError {
    AppendError::Unknown(error.to_string())
}
