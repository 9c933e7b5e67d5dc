//! Reads ranges of the embedded log, while another process may have it open.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use rusqlite::{Connection, OpenFlags, Statement};
use schemas::{Offset, PartitionCount, PartitionId, Position};
use tokio::sync::watch;

use super::{SCHEMA, SqliteOpenError, read_bounds};
use crate::log::contiguous_batcher::{ContiguousBatcher, spawn_record_stream};
use crate::log::{
    BoundsReader, LogBounds, LogIdentity, LogReader, ReadError, Record, RecordStream,
};
use crate::sqlite;

/// Reads the embedded log without consuming it.
pub struct SqliteReader {
    path: PathBuf,
    partitions: PartitionCount,
    identity: LogIdentity,
}

impl SqliteReader {
    /// Opens an existing log.
    ///
    /// # Errors
    /// When the log does not exist, or has another partition count.
    pub fn open(path: &Path, partitions: PartitionCount) -> Result<Self, SqliteOpenError> {
        let connection = sqlite::open_to_read(path, &SCHEMA)?;
        let (stored, cluster_id) = connection
            .query_row("SELECT partition_count, cluster_id FROM log", [], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .map_err(|error| SqliteOpenError::unusable(path, error))?;
        if stored != partitions.get() {
            let path = path.to_owned();
            return Err(SqliteOpenError::PartitionCount { path, stored, wanted: partitions.get() });
        }
        let identity = LogIdentity { cluster_id, topic_id: String::new() };
        Ok(Self { path: path.to_owned(), partitions, identity })
    }
}

/// Returns whether the log in a file, of any release, has a record. `false` if there is no file.
///
/// # Errors
/// When the file cannot be read.
pub fn has_records(path: &Path) -> Result<bool, SqliteOpenError> {
    if !path.exists() {
        return Ok(false);
    }
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY);
    let has_records = connection.and_then(|connection| {
        let table = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'records'";
        Ok(connection.prepare(table)?.exists([])?
            && connection.prepare("SELECT 1 FROM records LIMIT 1")?.exists([])?)
    });
    has_records.map_err(|error| SqliteOpenError::unusable(path, error))
}

/// Reads the bounds of the embedded log's partitions.
pub(super) struct SqliteBounds(PathBuf);

impl SqliteBounds {
    pub fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }
}

#[async_trait]
impl BoundsReader for SqliteBounds {
    async fn bounds(&self, partition: PartitionId) -> Result<LogBounds, ReadError> {
        let path = self.0.clone();
        let bounds = tokio::task::spawn_blocking(move || {
            let connection =
                sqlite::open_to_read(&path, &SCHEMA).map_err(ReadError::unavailable)?;
            read_bounds(&connection, partition).map_err(ReadError::unavailable)
        });
        bounds.await.map_err(ReadError::unavailable)?
    }
}

#[async_trait]
impl LogReader for SqliteReader {
    fn partitions(&self) -> PartitionCount {
        self.partitions
    }

    fn identity(&self) -> LogIdentity {
        self.identity.clone()
    }

    async fn bounds(&self, partition: PartitionId) -> Result<LogBounds, ReadError> {
        SqliteBounds::new(&self.path).bounds(partition).await
    }

    fn follow(
        &self,
        partition: PartitionId,
        start: Position,
        end: watch::Receiver<Position>,
    ) -> RecordStream {
        let path = self.path.clone();
        spawn_record_stream(partition, start, end, move |records| follow(&path, partition, records))
    }
}

fn follow(
    path: &Path,
    partition: PartitionId,
    records: &mut ContiguousBatcher<'_>,
) -> Result<(), ReadError> {
    let connection = sqlite::open_to_read(path, &SCHEMA).map_err(ReadError::unavailable)?;
    let mut select = connection
        .prepare(
            r#"SELECT "offset", key, value FROM records WHERE partition = ?1 AND "offset" >= ?2
               ORDER BY "offset""#,
        )
        .map_err(ReadError::unavailable)?;
    while let Some(first) = records.wait_for_request() {
        read(&mut select, partition, first, records)?;
    }
    Ok(())
}

/// Reads from `first` until the next record is missing or not requested: no query stays open during a wait.
fn read(
    select: &mut Statement<'_>,
    partition: PartitionId,
    first: Position,
    records: &mut ContiguousBatcher<'_>,
) -> Result<(), ReadError> {
    let mut rows =
        select.query((partition.0, first.0.cast_signed())).map_err(ReadError::unavailable)?;
    let mut any = false;
    while let Some(row) = rows.next().map_err(ReadError::unavailable)? {
        any = true;
        let offset: i64 = row.get(0).map_err(ReadError::unavailable)?;
        let more = records.push(Record {
            offset: Offset(offset.cast_unsigned()),
            key: row
                .get_ref(1)
                .and_then(|key| Ok(key.as_blob()?))
                .map_err(ReadError::unavailable)?,
            value: row
                .get_ref(2)
                .and_then(|value| Ok(value.as_blob()?))
                .map_err(ReadError::unavailable)?,
        })?;
        if !more {
            return Ok(());
        }
    }
    // Records appended during the query may be missing from it, but the first record must be in it.
    if any { Ok(()) } else { Err(ReadError::Missing(first)) }
}
