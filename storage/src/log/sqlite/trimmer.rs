//! Deletes the beginning of the embedded log, while another process may append to it.
//!
//! Only records that the caller names with their content are deleted, oldest first. The last record of a partition is
//! never to be deleted: the next offset follows from it. The submission index and the closed budgets stay, so a
//! repeated id is refused for ever.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, Row, TransactionBehavior};
use schemas::{LogNumber, Offset, PartitionId, RecordAddress, RecordDecoder};

use super::{SCHEMA, SqliteOpenError, read_bounds, submission_index};
use crate::log::{LogBounds, Record, RecordBatch};
use crate::sqlite::{self, Durability};
use crate::store::sqlite::sync_to_disk;

/// Why records of the embedded log were not deleted. All of them are still in it.
#[derive(Debug, thiserror::Error)]
pub enum SqliteTrimError {
    /// The log cannot be opened.
    #[error(transparent)]
    Open(#[from] SqliteOpenError),
    /// The log cannot be read or written, possibly only now.
    #[error("the log cannot be trimmed: {0}")]
    Unavailable(#[from] rusqlite::Error),
    /// The log has another record than the archive, or none.
    #[error(
        "partition {partition}: the record of the log at offset {offset} is not the one of the archive"
    )]
    OtherRecord {
        /// The partition.
        partition: PartitionId,
        /// The record's offset.
        offset: Offset,
    },
    /// An earlier release has appended records whose ids are in no index.
    #[error(
        "partition {0}: the submission ids of the log are not indexed yet, and a repeated one would not be \
         recognised: start `allocator run` of this release once, then repeat the command"
    )]
    NotIndexed(PartitionId),
}

/// Opens the embedded log for deleting its beginning.
#[derive(Debug, Clone)]
pub struct SqliteLogTrimmer {
    path: PathBuf,
    store: Option<PathBuf>,
}

impl SqliteLogTrimmer {
    /// Creates the trimmer of the log in a file, which is not opened yet.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), store: None }
    }

    /// Names the file of the embedded store, whose latest commits a power loss may undo.
    #[must_use]
    pub fn with_store(self, store: PathBuf) -> Self {
        Self { store: Some(store), ..self }
    }

    /// Makes the commits of the embedded store survive a power loss. Blocks.
    ///
    /// # Errors
    /// When the store cannot be opened or written.
    pub fn sync_store(&self) -> Result<(), SqliteTrimError> {
        self.store.as_ref().map_or(Ok(()), |store| Ok(sync_to_disk(store)?))
    }

    /// Opens the log, which must exist.
    pub(crate) fn connect(&self) -> Result<TrimConnection, SqliteTrimError> {
        sqlite::open_to_read(&self.path, &SCHEMA)?;
        Ok(TrimConnection(sqlite::open(&self.path, &SCHEMA, Durability::PowerLoss)?))
    }
}

/// A connection that deletes records.
pub(crate) struct TrimConnection(Connection);

impl TrimConnection {
    pub fn bounds(&self, partition: PartitionId) -> Result<LogBounds, SqliteTrimError> {
        Ok(read_bounds(&self.0, partition)?)
    }

    /// Deletes records in one transaction, if the log has exactly these.
    pub fn delete(&mut self, archived: &RecordBatch) -> Result<(), SqliteTrimError> {
        let partition = archived.partition();
        let (Some(first), Some(end)) = (archived.iter().next(), archived.end()) else {
            return Ok(());
        };
        let range = (partition.0, first.offset.0.cast_signed(), end.0.cast_signed());
        let transaction = self.0.transaction_with_behavior(TransactionBehavior::Immediate)?;
        if submission_index::indexed_position(&transaction, partition)? < end {
            return Err(SqliteTrimError::NotIndexed(partition));
        }
        // An earlier release has created not all of them.
        submission_index::create_tables(&transaction)?;
        {
            let mut select = transaction.prepare_cached(
                r#"SELECT "offset", key, value FROM records
                   WHERE partition = ?1 AND "offset" >= ?2 AND "offset" < ?3 ORDER BY "offset""#,
            )?;
            let mut rows = select.query(range)?;
            let mut decoder = RecordDecoder::default();
            for record in archived.iter() {
                let offset = record.offset;
                match rows.next()? {
                    Some(row) if is_same(row, record)? => {}
                    _ => return Err(SqliteTrimError::OtherRecord { partition, offset }),
                }
                if let Ok(view) = decoder.decode(record.key, record.value) {
                    let address = RecordAddress { log: LogNumber::FIRST, partition, offset };
                    submission_index::keep_person(&transaction, &view, address)?;
                }
            }
        }
        transaction.execute(
            r#"DELETE FROM records WHERE partition = ?1 AND "offset" >= ?2 AND "offset" < ?3"#,
            range,
        )?;
        Ok(transaction.commit()?)
    }
}

/// Whether a row of the log is a record of the archive.
fn is_same(row: &Row<'_>, record: Record<'_>) -> rusqlite::Result<bool> {
    Ok(row.get::<_, i64>(0)?.cast_unsigned() == record.offset.0
        && row.get_ref(1)?.as_blob()? == record.key
        && row.get_ref(2)?.as_blob()? == record.value)
}
