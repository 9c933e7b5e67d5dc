//! The index of the embedded log by submission id: for each person, the first record of each id that a client has
//! chosen.
//!
//! The index recognises a repeated submission however long ago it was appended, also after a restart: it is written in
//! the transaction that appends the records.
//!
//! - `submission_ids` maps an id to its first record.
//! - `submission_ids_of_further_persons` maps an id and a person to a record: of other persons with the same id, which
//!   is rare, and of records that are trimmed from the log, since the first table does not name the person.
//!
//! Earlier releases read and write the first table alone. The index is derived from the records: when the log is
//! opened, records that an earlier release has appended without it are indexed. The tables are created with the first
//! records and by no migration, so that earlier releases still open the file.

use rusqlite::{Connection, OptionalExtension, Row, Transaction, TransactionBehavior};
use schemas::{
    LogNumber, Offset, PartitionCount, PartitionId, Position, RecordAddress, RecordDecoder,
    RecordView,
};

use super::closed_budgets;

const TABLES: &str = r#"
    CREATE TABLE IF NOT EXISTS submission_ids (
        submission_id BLOB NOT NULL,
        budget TEXT NOT NULL,
        digest INTEGER NOT NULL,
        partition INTEGER NOT NULL,
        "offset" INTEGER NOT NULL,
        PRIMARY KEY (submission_id, budget)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS submission_ids_of_further_persons (
        submission_id BLOB NOT NULL,
        budget TEXT NOT NULL,
        person BLOB NOT NULL,
        digest INTEGER NOT NULL,
        partition INTEGER NOT NULL,
        "offset" INTEGER NOT NULL,
        PRIMARY KEY (submission_id, budget, person)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS indexed_positions (
        partition INTEGER PRIMARY KEY,
        position INTEGER NOT NULL
    ) STRICT;
"#;

/// Records indexed in one transaction while the log is opened.
const RECORDS_PER_TRANSACTION: u64 = 10_000;

/// The first record with a submission id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct IndexedSubmission {
    /// Digest of the record's person and content.
    pub digest: u64,
    /// The record's address.
    pub address: RecordAddress,
}

/// Creates the tables of the index, and that of the closed budgets, if they do not exist.
pub(super) fn create_tables(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(TABLES)?;
    connection.execute_batch(closed_budgets::TABLE)
}

/// Indexes the records that are not in the index yet. Does nothing to a log without records.
pub(super) fn bring_up_to_date(
    connection: &mut Connection,
    partitions: PartitionCount,
) -> rusqlite::Result<()> {
    if !connection.prepare("SELECT 1 FROM records LIMIT 1")?.exists([])? {
        return Ok(());
    }
    create_tables(connection)?;
    let mut indexed = 0;
    for partition in partitions.partitions() {
        while let records @ 1.. = index_next_records(connection, partition)? {
            indexed += records;
        }
    }
    if indexed > 0 {
        tracing::info!(records = indexed, "indexed submission ids of the log");
    }
    Ok(())
}

/// Indexes the next records of a partition, and returns their number.
fn index_next_records(
    connection: &mut Connection,
    partition: PartitionId,
) -> rusqlite::Result<u64> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut records = 0;
    let mut position = indexed_position(&transaction, partition)?;
    {
        let mut select = transaction.prepare_cached(
            r#"SELECT "offset", key, value FROM records WHERE partition = ?1 AND "offset" >= ?2
               ORDER BY "offset" LIMIT ?3"#,
        )?;
        let limit = RECORDS_PER_TRANSACTION.cast_signed();
        let mut rows = select.query((partition.0, position.0.cast_signed(), limit))?;
        let mut decoder = RecordDecoder::default();
        while let Some(row) = rows.next()? {
            let offset = Offset(row.get::<_, i64>(0)?.cast_unsigned());
            let (key, value) = (row.get_ref(1)?.as_blob()?, row.get_ref(2)?.as_blob()?);
            if let Ok(record) = decoder.decode(key, value) {
                let address = RecordAddress { log: LogNumber::FIRST, partition, offset };
                insert(&transaction, &record, address)?;
            }
            position = offset.next();
            records += 1;
        }
    }
    if records > 0 {
        set_indexed(&transaction, partition, position)?;
    }
    transaction.commit()?;
    Ok(records)
}

/// Returns the position below which all records of a partition are indexed.
pub(super) fn indexed_position(
    transaction: &Transaction<'_>,
    partition: PartitionId,
) -> rusqlite::Result<Position> {
    let table = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'indexed_positions'";
    if !transaction.prepare_cached(table)?.exists([])? {
        return Ok(Position::START);
    }
    let position: Option<i64> = transaction
        .prepare_cached("SELECT position FROM indexed_positions WHERE partition = ?1")?
        .query_row([partition.0], |row| row.get(0))
        .optional()?;
    Ok(Position(position.unwrap_or_default().cast_unsigned()))
}

/// Notes that all records below `position` are indexed.
pub(super) fn set_indexed(
    transaction: &Transaction<'_>,
    partition: PartitionId,
    position: Position,
) -> rusqlite::Result<()> {
    transaction
        .prepare_cached(
            "INSERT INTO indexed_positions (partition, position) VALUES (?1, ?2)
             ON CONFLICT (partition) DO UPDATE SET position = excluded.position",
        )?
        .execute((partition.0, position.0.cast_signed()))
        .map(drop)
}

/// Indexes a record, unless its id was generated or an earlier record of its person has it.
pub(super) fn insert(
    transaction: &Transaction<'_>,
    record: &RecordView<'_>,
    address: RecordAddress,
) -> rusqlite::Result<()> {
    if record.generated_id {
        return Ok(());
    }
    let (id, digest) =
        (record.submission_id.0.as_bytes(), record.submission_digest().cast_signed());
    let (partition, offset) = (address.partition.0, address.offset.0.cast_signed());
    let inserted = transaction
        .prepare_cached(
            r#"INSERT INTO submission_ids (submission_id, budget, digest, partition, "offset")
               VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING"#,
        )?
        .execute((id, record.budget, digest, partition, offset))?;
    if inserted > 0 || find(transaction, record)?.is_some() {
        return Ok(());
    }
    transaction
        .prepare_cached(
            r#"INSERT INTO submission_ids_of_further_persons
               (submission_id, budget, person, digest, partition, "offset")
               VALUES (?1, ?2, ?3, ?4, ?5, ?6)"#,
        )?
        .execute((id, record.budget, record.person.as_bytes(), digest, partition, offset))
        .map(drop)
}

/// Finds the first record with the id and the person of `record`, unless that id was generated.
pub(super) fn find(
    transaction: &Transaction<'_>,
    record: &RecordView<'_>,
) -> rusqlite::Result<Option<IndexedSubmission>> {
    if record.generated_id {
        return Ok(None);
    }
    let id = record.submission_id.0.as_bytes();
    let first = transaction
        .prepare_cached(
            r#"SELECT digest, partition, "offset", key
               FROM submission_ids LEFT JOIN records USING (partition, "offset")
               WHERE submission_id = ?1 AND budget = ?2"#,
        )?
        .query_row((id, record.budget), |row| {
            Ok((indexed(row)?, row.get::<_, Option<Vec<u8>>>(3)?))
        })
        .optional()?;
    match first {
        Some((first, Some(person))) if person == record.person.as_bytes() => {
            return Ok(Some(first));
        }
        // Another person's, or trimmed.
        Some(_) => {}
        None => return Ok(None),
    }
    transaction
        .prepare_cached(
            r#"SELECT digest, partition, "offset" FROM submission_ids_of_further_persons
               WHERE submission_id = ?1 AND budget = ?2 AND person = ?3"#,
        )?
        .query_row((id, record.budget, record.person.as_bytes()), indexed)
        .optional()
}

/// Notes whose a record is that is trimmed from the log, if it is the first one of its id.
pub(super) fn keep_person(
    transaction: &Transaction<'_>,
    record: &RecordView<'_>,
    address: RecordAddress,
) -> rusqlite::Result<()> {
    let (id, person) = (record.submission_id.0.as_bytes(), record.person.as_bytes());
    let (partition, offset) = (address.partition.0, address.offset.0.cast_signed());
    transaction
        .prepare_cached(
            r#"INSERT INTO submission_ids_of_further_persons
               (submission_id, budget, person, digest, partition, "offset")
               SELECT submission_id, budget, ?3, digest, partition, "offset" FROM submission_ids
               WHERE submission_id = ?1 AND budget = ?2 AND partition = ?4 AND "offset" = ?5
               ON CONFLICT DO NOTHING"#,
        )?
        .execute((id, record.budget, person, partition, offset))
        .map(drop)
}

/// Reads a row of digest, partition and offset.
fn indexed(row: &Row<'_>) -> rusqlite::Result<IndexedSubmission> {
    let address = RecordAddress {
        log: LogNumber::FIRST,
        partition: PartitionId(row.get(1)?),
        offset: Offset(row.get::<_, i64>(2)?.cast_unsigned()),
    };
    Ok(IndexedSubmission { digest: row.get::<_, i64>(0)?.cast_unsigned(), address })
}
