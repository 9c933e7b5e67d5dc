//! Appends a group of writes in one transaction: assigns offsets, refuses repeated submission ids, and maps failures to
//! append errors.

use runtime::clock::now_ms;
use rusqlite::{Connection, ErrorCode, Transaction, TransactionBehavior};
use schemas::{
    LogNumber, Offset, PartitionCount, PartitionId, Position, RecordAddress, RecordDecoder,
    RecordKind,
};

use super::closed_budgets::{self, ClosedBudgets};
use super::{read_end, submission_index};
use crate::log::{AppendError, DeadLetter, NewRecord};

/// Size of a probe: the size of many submissions.
const PROBE_BYTES: u32 = 64 << 10;

/// One caller's write, which is applied whole or not at all.
pub(super) enum Write {
    /// Records with their partitions, all of which exist.
    Records(Vec<(PartitionId, NewRecord)>),
    /// The same, each at most once for its submission id.
    Submissions(Vec<(PartitionId, NewRecord)>),
    DeadLetters(Vec<DeadLetter>),
}

/// The result of each record of a write; dead letters have none.
pub(super) type Appended = Vec<Result<RecordAddress, AppendError>>;

/// The connection that writes to the log. There is only one.
pub(super) struct SqliteAppender {
    connection: Connection,
    partitions: PartitionCount,
    /// Whether the tables of the submission index exist.
    is_indexed: bool,
    /// Size of the file from which on records are refused.
    max_bytes: u64,
    /// Each partition's next position; `None` after a failure, until it is read from the database.
    ends: Option<Vec<Position>>,
    /// The closed budgets; `None` until they are read from the database, and after a failure.
    closed: Option<ClosedBudgets>,
}

impl SqliteAppender {
    pub fn new(mut connection: Connection, partitions: PartitionCount) -> rusqlite::Result<Self> {
        submission_index::bring_up_to_date(&mut connection, partitions)?;
        let ends = Some(read_ends(&connection, partitions)?);
        let is_indexed = ends.iter().flatten().any(|end| *end > Position::START);
        Ok(Self { connection, partitions, is_indexed, max_bytes: u64::MAX, ends, closed: None })
    }

    /// Refuses records once the file has `max_bytes` in use.
    pub fn with_max_bytes(self, max_bytes: u64) -> Self {
        Self { max_bytes, ..self }
    }

    /// Checks that the file has not reached its configured size.
    pub fn check_size(&self) -> Result<(), AppendError> {
        if self.max_bytes == u64::MAX {
            return Ok(());
        }
        match used_bytes(&self.connection).map_err(not_appended)? {
            bytes if bytes < self.max_bytes => Ok(()),
            _ => Err(AppendError::Full { max_bytes: self.max_bytes }),
        }
    }

    pub fn ends(&self) -> Vec<Position> {
        self.ends.clone().unwrap_or_default()
    }

    /// Commits all writes in one transaction, and returns each write's results. In a full log, only dead letters are
    /// written: without them, what is in the log could not be folded.
    pub fn commit<'w>(
        &mut self,
        writes: impl Iterator<Item = &'w Write>,
    ) -> Result<Vec<Appended>, AppendError> {
        let mut ends = match self.ends.take() {
            Some(ends) => ends,
            None => read_ends(&self.connection, self.partitions).map_err(not_appended)?,
        };
        let full = self.check_size().err();
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(not_appended)?;
        if !self.is_indexed {
            submission_index::create_tables(&transaction).map_err(not_appended)?;
        }
        let mut closed = match self.closed.take() {
            Some(closed) => closed,
            None => ClosedBudgets::read(&transaction).map_err(not_appended)?,
        };
        let former = ends.clone();
        let mut log = LogTail { ends: &mut ends, closed: &mut closed };
        let appended = writes
            .map(|write| match write {
                Write::Records(records) | Write::Submissions(records)
                    if full.is_some() && !are_markers(records) =>
                {
                    Ok(full.iter().cycle().take(records.len()).cloned().map(Err).collect())
                }
                Write::Records(records) => insert_records(&transaction, &mut log, records, false),
                Write::Submissions(records) => {
                    insert_records(&transaction, &mut log, records, true)
                }
                Write::DeadLetters(dead_letters) => insert_dead_letters(&transaction, dead_letters),
            })
            .collect::<rusqlite::Result<_>>()
            .and_then(|appended| {
                note_indexed(&transaction, &former, &ends)?;
                Ok(appended)
            })
            .map_err(not_appended)?;
        transaction.commit().map_err(commit_failed)?;
        self.is_indexed = true;
        (self.ends, self.closed) = (Some(ends), Some(closed));
        Ok(appended)
    }

    /// Probes whether records can be appended again: the log is not full, and the disk has space to commit a row.
    pub fn probe(&self) -> Result<(), AppendError> {
        self.check_size()?;
        self.connection
            .execute("INSERT INTO probes (bytes) VALUES (zeroblob(?1))", [PROBE_BYTES])
            .and_then(|_| self.connection.execute("DELETE FROM probes", []))
            .map(drop)
            .map_err(not_appended)
    }
}

/// What a transaction knows of the log without reading it.
struct LogTail<'t> {
    /// Each partition's next position.
    ends: &'t mut [Position],
    closed: &'t mut ClosedBudgets,
}

/// Returns the size of what is in the database's file, without its `-wal`. Pages that are free, as after trimming, are
/// used again before the file grows.
fn used_bytes(connection: &Connection) -> rusqlite::Result<u64> {
    let pragma = |name| {
        let value = connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
        Ok::<_, rusqlite::Error>(value?.cast_unsigned())
    };
    let used_pages = pragma("page_count")?.saturating_sub(pragma("freelist_count")?);
    Ok(used_pages * pragma("page_size")?)
}

fn read_ends(
    connection: &Connection,
    partitions: PartitionCount,
) -> rusqlite::Result<Vec<Position>> {
    partitions.partitions().map(|partition| read_end(connection, partition.0)).collect()
}

/// Notes how far the partitions that have new records are indexed.
fn note_indexed(
    transaction: &Transaction<'_>,
    former: &[Position],
    ends: &[Position],
) -> rusqlite::Result<()> {
    for (partition, (former, end)) in (0..).map(PartitionId).zip(former.iter().zip(ends)) {
        if former != end {
            submission_index::set_indexed(transaction, partition, *end)?;
        }
    }
    Ok(())
}

/// Inserts records and indexes their submission ids. With `once_per_id`, submissions whose id is in the log are
/// refused, and those whose budget is closed.
fn insert_records(
    transaction: &Transaction<'_>,
    log: &mut LogTail<'_>,
    records: &[(PartitionId, NewRecord)],
    once_per_id: bool,
) -> rusqlite::Result<Appended> {
    let mut insert = transaction.prepare_cached(
        r#"INSERT INTO records (partition, "offset", key, value) VALUES (?1, ?2, ?3, ?4)"#,
    )?;
    let mut decoder = RecordDecoder::default();
    records
        .iter()
        .map(|(partition, record)| {
            let partition = *partition;
            let submission = decoder.decode(record.key.as_bytes(), &record.value).ok();
            if once_per_id
                && let Some(submission) = &submission
                && let Some(first) = submission_index::find(transaction, submission)?
            {
                return Ok(Err(match first.digest == submission.submission_digest() {
                    true => AppendError::Repeated(first.address),
                    false => AppendError::IdReused,
                }));
            }
            if once_per_id
                && let Some(submission) = &submission
                && submission.kind == RecordKind::Submission
                && log.closed.is_closed(partition, submission.budget)
            {
                return Ok(Err(AppendError::Closed));
            }
            let end = log
                .ends
                .get_mut(partition.0 as usize)
                .ok_or_else(|| rusqlite::Error::InvalidParameterName(partition.to_string()))?;
            let offset = Offset(end.0);
            insert.execute((
                partition.0,
                offset.0.cast_signed(),
                record.key.as_bytes(),
                &record.value,
            ))?;
            *end = offset.next();
            let address = RecordAddress { log: LogNumber::FIRST, partition, offset };
            if let Some(submission) = &submission {
                submission_index::insert(transaction, submission, address)?;
                if let RecordKind::Marker(marker) = submission.kind {
                    let budget = submission.budget;
                    closed_budgets::write_marker(transaction, partition, budget, marker)?;
                    log.closed.note(partition, budget, marker);
                }
            }
            Ok(Ok(address))
        })
        .collect()
}

/// Whether all records are markers, which are few: a full log must not keep a budget from being closed.
fn are_markers(records: &[(PartitionId, NewRecord)]) -> bool {
    let mut decoder = RecordDecoder::default();
    records.iter().all(|(_, record)| {
        let decoded = decoder.decode(record.key.as_bytes(), &record.value);
        decoded.is_ok_and(|record| matches!(record.kind, RecordKind::Marker(_)))
    })
}

fn insert_dead_letters(
    transaction: &Transaction<'_>,
    dead_letters: &[DeadLetter],
) -> rusqlite::Result<Appended> {
    let mut insert = transaction.prepare_cached(
        r#"INSERT INTO dead_letters (partition, "offset", reason, key, value, put_at_ms)
           VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO NOTHING"#,
    )?;
    let now_ms = now_ms().cast_signed();
    for dead_letter in dead_letters {
        let RecordAddress { partition, offset, .. } = dead_letter.source;
        let (partition, offset) = (partition.0, offset.0.cast_signed());
        let DeadLetter { reason, key, value, .. } = dead_letter;
        insert.execute((partition, offset, reason, key, value, now_ms))?;
    }
    Ok(Vec::new())
}

/// Maps a failure before COMMIT: nothing was appended.
fn not_appended(error: rusqlite::Error) -> AppendError {
    AppendError::Unavailable(error.to_string())
}

/// Maps a failure of COMMIT. A full disk fails before the commit frame is written. After any other failure, such as a
/// failed sync, the commit frame may be in the file, and a restart may recover it.
fn commit_failed(error: rusqlite::Error) -> AppendError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => AppendError::Unavailable(error.to_string()),
        _ => AppendError::Unknown(error.to_string()),
    }
}

#[cfg(test)]
mod tests;
