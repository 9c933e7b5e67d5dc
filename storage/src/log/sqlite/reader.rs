//! Reads stretches of the embedded log, beside the process that has it open.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use rusqlite::{Connection, Statement};
use schemas::{Offset, PartitionCount, PartitionId, Position};
use tokio::sync::watch;

use super::{OpenError, SCHEMA, end_of};
use crate::log::gapless::{self, Gapless};
use crate::log::{LogBounds, LogIdentity, LogReader, ReadError, Record, Stretch};
use crate::sqlite;

/// A reader of the embedded log.
pub struct SqliteReader {
    path: PathBuf,
    partitions: PartitionCount,
    identity: LogIdentity,
}

impl SqliteReader {
    /// Opens a log that is there.
    ///
    /// # Errors
    /// When there is none, or it has another partition count.
    pub fn open(path: &Path, partitions: PartitionCount) -> Result<Self, OpenError> {
        let connection = sqlite::open_to_read(path, &SCHEMA)?;
        let (stored, cluster_id) = connection
            .query_row("SELECT partition_count, cluster_id FROM log", [], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .map_err(|error| OpenError::unusable(path, error))?;
        if stored != partitions.get() {
            let path = path.to_owned();
            return Err(OpenError::PartitionCount { path, stored, wanted: partitions.get() });
        }
        let identity = LogIdentity { cluster_id, topic_id: String::new() };
        Ok(Self { path: path.to_owned(), partitions, identity })
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
        let path = self.path.clone();
        let asked = tokio::task::spawn_blocking(move || {
            let connection =
                sqlite::open_to_read(&path, &SCHEMA).map_err(ReadError::unavailable)?;
            let high = end_of(&connection, partition.0).map_err(ReadError::unavailable)?;
            let low = first_of(&connection, partition).map_err(ReadError::unavailable)?;
            Ok(LogBounds { low: low.unwrap_or(high), high })
        });
        asked.await.map_err(ReadError::unavailable)?
    }

    fn follow(
        &self,
        partition: PartitionId,
        start: Position,
        end: watch::Receiver<Position>,
    ) -> Stretch {
        let path = self.path.clone();
        gapless::stretch(partition, start, end, move |records| follow(&path, partition, records))
    }
}

fn first_of(connection: &Connection, partition: PartitionId) -> rusqlite::Result<Option<Position>> {
    connection
        .prepare_cached(r#"SELECT min("offset") FROM records WHERE partition = ?1"#)?
        .query_row([partition.0], |row| row.get::<_, Option<i64>>(0))
        .map(|first| first.map(|first| Position(first.cast_unsigned())))
}

fn follow(path: &Path, partition: PartitionId, records: &mut Gapless<'_>) -> Result<(), ReadError> {
    let connection = sqlite::open_to_read(path, &SCHEMA).map_err(ReadError::unavailable)?;
    let mut select = connection
        .prepare(
            r#"SELECT "offset", key, value FROM records WHERE partition = ?1 AND "offset" >= ?2
               ORDER BY "offset""#,
        )
        .map_err(ReadError::unavailable)?;
    while let Some(first) = records.wanted() {
        read(&mut select, partition, first, records)?;
    }
    Ok(())
}

/// Reads on until the next record is not there yet, or not wanted yet: nothing is held open while it is waited for.
fn read(
    select: &mut Statement<'_>,
    partition: PartitionId,
    first: Position,
    records: &mut Gapless<'_>,
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
    // What came since is not in what was begun to be read, but the first was to be there.
    if any { Ok(()) } else { Err(ReadError::Missing(first)) }
}
