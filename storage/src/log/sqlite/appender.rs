//! One transaction of the log: who gets which offset, and what a failure means for everybody in it.

use runtime::clock::now_ms;
use rusqlite::{Connection, ErrorCode, Transaction, TransactionBehavior};
use schemas::{LogNumber, Offset, PartitionCount, PartitionId, Position, Receipt};

use super::end_of;
use crate::log::{AppendError, DeadLetter, NewRecord};

/// As much as many submissions need.
const PROBE_BYTES: u32 = 64 << 10;

/// What one caller wants written, whole or not at all.
pub(super) enum Write {
    /// Records of partitions that are there.
    Records(Vec<(PartitionId, NewRecord)>),
    Letters(Vec<DeadLetter>),
}

/// The only connection that writes.
pub(super) struct Appender {
    connection: Connection,
    partitions: PartitionCount,
    /// Where each partition's next record goes; unknown after a failure, until the database is asked.
    ends: Option<Vec<Position>>,
}

impl Appender {
    pub fn new(connection: Connection, partitions: PartitionCount) -> rusqlite::Result<Self> {
        let ends = Some(read_ends(&connection, partitions)?);
        Ok(Self { connection, partitions, ends })
    }

    pub fn ends(&self) -> Vec<Position> {
        self.ends.clone().unwrap_or_default()
    }

    /// Writes everything in one transaction. Answers, once that is durable, each write's receipts; letters have none.
    pub fn commit<'w>(
        &mut self,
        writes: impl Iterator<Item = &'w Write>,
    ) -> Result<Vec<Vec<Receipt>>, AppendError> {
        let mut ends = match self.ends.take() {
            Some(ends) => ends,
            None => read_ends(&self.connection, self.partitions).map_err(not_there)?,
        };
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(not_there)?;
        let receipts = writes
            .map(|write| match write {
                Write::Records(records) => insert_records(&transaction, &mut ends, records),
                Write::Letters(letters) => insert_letters(&transaction, letters),
            })
            .collect::<rusqlite::Result<_>>()
            .map_err(not_there)?;
        transaction.commit().map_err(commit_failed)?;
        self.ends = Some(ends);
        Ok(receipts)
    }

    /// Commits something that does not matter and takes it back, to find out whether the disk has room again.
    pub fn probe(&self) -> Result<(), AppendError> {
        self.connection
            .execute("INSERT INTO probes (bytes) VALUES (zeroblob(?1))", [PROBE_BYTES])
            .and_then(|_| self.connection.execute("DELETE FROM probes", []))
            .map(drop)
            .map_err(not_there)
    }
}

fn read_ends(
    connection: &Connection,
    partitions: PartitionCount,
) -> rusqlite::Result<Vec<Position>> {
    partitions.partitions().map(|partition| end_of(connection, partition.0)).collect()
}

fn insert_records(
    transaction: &Transaction<'_>,
    ends: &mut [Position],
    records: &[(PartitionId, NewRecord)],
) -> rusqlite::Result<Vec<Receipt>> {
    let mut insert = transaction.prepare_cached(
        r#"INSERT INTO records (partition, "offset", key, value) VALUES (?1, ?2, ?3, ?4)"#,
    )?;
    records
        .iter()
        .map(|(partition, record)| {
            let partition = *partition;
            let end = ends
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
            Ok(Receipt { log: LogNumber::FIRST, partition, offset })
        })
        .collect()
}

fn insert_letters(
    transaction: &Transaction<'_>,
    letters: &[DeadLetter],
) -> rusqlite::Result<Vec<Receipt>> {
    let mut insert = transaction.prepare_cached(
        r#"INSERT INTO dead_letters (partition, "offset", reason, key, value, put_at_ms)
           VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO NOTHING"#,
    )?;
    let now_ms = now_ms().cast_signed();
    for letter in letters {
        let Receipt { partition, offset, .. } = letter.place;
        let (partition, offset) = (partition.0, offset.0.cast_signed());
        let DeadLetter { reason, key, value, .. } = letter;
        insert.execute((partition, offset, reason, key, value, now_ms))?;
    }
    Ok(Vec::new())
}

/// Before COMMIT nothing can have got into the log.
fn not_there(error: rusqlite::Error) -> AppendError {
    AppendError::Unavailable(error.to_string())
}

/// A full disk stops before the frame that makes a commit. After any other failure, such as one to sync, that frame may
/// be in the file, and a restart may find it there.
fn commit_failed(error: rusqlite::Error) -> AppendError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => AppendError::Unavailable(error.to_string()),
        _ => AppendError::Unknown(error.to_string()),
    }
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use schemas::{LogNumber, PersonKey};

    use super::*;
    use crate::log::sqlite::SCHEMA;
    use crate::sqlite::{Durability, open};

    fn record(partition: u32) -> Write {
        let key = PersonKey::from_bytes([1; PersonKey::BYTES]);
        let value = vec![7; 3_000];
        Write::Records(vec![(PartitionId(partition), NewRecord { key, value })])
    }

    /// In both partitions.
    fn receipts(offset: u64) -> Vec<Vec<Receipt>> {
        let receipt = |partition| Receipt {
            log: LogNumber::FIRST,
            partition: PartitionId(partition),
            offset: Offset(offset),
        };
        vec![vec![receipt(0)], vec![receipt(1)]]
    }

    #[test]
    fn a_full_disk_takes_nothing_and_leaves_no_gap_once_it_has_room_again() {
        let directory = tempfile::tempdir().expect("a directory");
        let connection = open(&directory.path().join("log"), &SCHEMA, Durability::PowerLoss)
            .expect("a database");
        connection.pragma_update(None, "max_page_count", 20).expect("a limit");
        let partitions = PartitionCount::new(2).expect("a count");
        let mut appender = Appender::new(connection, partitions).expect("an appender");

        let mut taken = 0;
        let refusal = loop {
            match appender.commit([record(0), record(1)].iter()) {
                Ok(found) => {
                    assert_eq!(found, receipts(taken));
                    taken += 1;
                }
                Err(refusal) => break refusal,
            }
        };
        assert!(matches!(refusal, AppendError::Unavailable(_)), "{refusal}");
        assert!(appender.commit([record(0), record(1)].iter()).is_err());

        appender.connection.pragma_update(None, "max_page_count", 1_000).expect("room");
        let found = appender.commit([record(0), record(1)].iter());
        assert_eq!(found, Ok(receipts(taken)));
    }
}
