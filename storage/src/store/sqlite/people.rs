//! Person rows.

use rusqlite::{Connection, OptionalExtension, TransactionBehavior};
use schemas::{PersonKey, PersonRow, bucket_of};

use super::Fault;
use super::partitions::is_retired;
use crate::store::PartitionRef;

/// Rows per write transaction: a commit waits at most a few milliseconds for one.
pub(super) const TRANSACTION_ROWS: usize = 1_000;
/// Rows per read.
const PAGE_ROWS: u32 = 1_000;

pub(super) fn write(
    connection: &mut Connection,
    partition: PartitionRef,
    rows: &[PersonRow],
) -> Result<(), Fault> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    if is_retired(&transaction, partition)? {
        return Ok(());
    }
    let mut upsert = transaction.prepare_cached(
        r#"INSERT INTO allocations (generation, partition, bucket, person, "offset", state)
           VALUES (?1, ?2, ?3, ?4, ?5, ?6)
           ON CONFLICT DO UPDATE SET "offset" = excluded."offset", state = excluded.state
           WHERE excluded."offset" > allocations."offset""#,
    )?;
    for row in rows {
        upsert.execute((
            partition.generation.0,
            partition.partition.0,
            bucket_of(&row.person),
            row.person.as_bytes(),
            row.offset.0.cast_signed(),
            row.encode_state(),
        ))?;
    }
    drop(upsert);
    transaction.commit()?;
    Ok(())
}

/// Reads the next rows of a bucket after a person, ordered by key; empty at the end.
pub(super) fn read_page(
    connection: &mut Connection,
    partition: PartitionRef,
    bucket: u8,
    after: Option<PersonKey>,
) -> Result<Vec<PersonRow>, Fault> {
    // The empty blob sorts before every key.
    let after = after.map_or(Vec::new(), |person| person.as_bytes().to_vec());
    let mut select = connection.prepare_cached(
        "SELECT person, state FROM allocations
         WHERE generation = ?1 AND partition = ?2 AND bucket = ?3 AND person > ?4
         ORDER BY person LIMIT ?5",
    )?;
    let mut rows =
        select.query((partition.generation.0, partition.partition.0, bucket, after, PAGE_ROWS))?;
    let mut page = Vec::new();
    while let Some(row) = rows.next()? {
        page.push(decode(
            row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?,
            row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?,
        )?);
    }
    Ok(page)
}

pub(super) fn read(
    connection: &mut Connection,
    partition: PartitionRef,
    bucket: u8,
    person: PersonKey,
) -> Result<Option<PersonRow>, Fault> {
    let state: Option<Vec<u8>> = connection
        .prepare_cached(
            "SELECT state FROM allocations
             WHERE generation = ?1 AND partition = ?2 AND bucket = ?3 AND person = ?4",
        )?
        .query_row(
            (partition.generation.0, partition.partition.0, bucket, person.as_bytes()),
            |row| row.get(0),
        )
        .optional()?;
    state.map(|state| decode(person.as_bytes(), &state)).transpose()
}

fn decode(person: &[u8], state: &[u8]) -> Result<PersonRow, Fault> {
    PersonRow::decode(person, state).map_err(|fault| Fault::Damage(fault.to_string()))
}
