//! Checkpoints and totals: the conditional writes, and the reads.
//!
//! SQLite's integers are signed: unsigned numbers are stored with the same 64 bits.

use rusqlite::{Connection, OptionalExtension, Row, Transaction, TransactionBehavior};
use schemas::{BudgetId, BudgetTotals, Generation, Offset, PartitionCount, PartitionId, Position};

use super::{Fault, outcome};
use crate::log_identity::LogIdentity;
use crate::store::{
    BudgetSummary, CasOutcome, Checkpoint, Commit, DamagedTotals, Epoch, KnownPartition,
    PartitionRef, RecordCounts, RecordFingerprint, StoredPartition,
};

pub(super) fn read(
    connection: &mut Connection,
    partition: PartitionRef,
) -> Result<Option<StoredPartition>, Fault> {
    // One snapshot of checkpoint and totals.
    let snapshot = connection.transaction()?;
    let key = (partition.generation.0, partition.partition.0);
    let partition_row = snapshot
        .prepare_cached(
            "SELECT epoch, owner, position, state_position, cluster_id, topic_id, last_offset,
                    last_fingerprint, applied, duplicates, dead_lettered
             FROM partitions WHERE generation = ?1 AND partition = ?2",
        )?
        .query_row(key, |row| Ok((Epoch(number(row, 0)?), row.get(1)?, checkpoint(row)?)))
        .optional()?;
    let Some((epoch, owner, checkpoint)) = partition_row else { return Ok(None) };
    let mut select = snapshot.prepare_cached(
        "SELECT budget_position, people, updated_at_ms, sums, distribution, budget
         FROM totals WHERE generation = ?1 AND partition = ?2 ORDER BY budget",
    )?;
    let mut rows = select.query(key)?;
    let mut totals = Vec::new();
    while let Some(row) = rows.next()? {
        let budget = BudgetId::parse(row.get_ref(5)?.as_str().map_err(rusqlite::Error::from)?)
            .map_err(|fault| Fault::Damage(format!("a budget's id {fault}")))?;
        totals.push((budget, totals_from(row)?));
    }
    Ok(Some(StoredPartition { epoch, owner, checkpoint, totals }))
}

pub(super) fn rows_position(
    connection: &Connection,
    partition: PartitionRef,
) -> Result<Option<Position>, Fault> {
    let stored = connection
        .prepare_cached(
            "SELECT state_position FROM partitions WHERE generation = ?1 AND partition = ?2",
        )?
        .query_row((partition.generation.0, partition.partition.0), |row| number(row, 0))
        .optional()?;
    Ok(stored.map(Position))
}

/// Claims a partition; `None` if it is retired.
pub(super) fn claim(
    connection: &mut Connection,
    partition: PartitionRef,
    expected: Option<Epoch>,
    next: Epoch,
    owner: &str,
) -> Result<Option<CasOutcome>, Fault> {
    let connection = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    if is_retired(&connection, partition)? {
        return Ok(None);
    }
    let (generation, number) = (partition.generation.0, partition.partition.0);
    let next = next.0.cast_signed();
    let changed = match expected {
        None => connection
            .prepare_cached(
                "INSERT INTO partitions (generation, partition, epoch, owner)
                 VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING",
            )?
            .execute((generation, number, next, owner))?,
        Some(expected) => connection
            .prepare_cached(
                "UPDATE partitions SET epoch = ?3, owner = ?4
                 WHERE generation = ?1 AND partition = ?2 AND epoch = ?5",
            )?
            .execute((generation, number, next, owner, expected.0.cast_signed()))?,
    };
    connection.commit()?;
    Ok(Some(outcome(changed)))
}

pub(super) fn is_retired(connection: &Connection, partition: PartitionRef) -> Result<bool, Fault> {
    Ok(connection
        .prepare_cached("SELECT 1 FROM deleted_people WHERE generation = ?1 AND partition = ?2")?
        .exists((partition.generation.0, partition.partition.0))?)
}

pub(super) fn retire(connection: &mut Connection, partition: PartitionRef) -> Result<(), Fault> {
    let key = (partition.generation.0, partition.partition.0);
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute(
        "INSERT OR IGNORE INTO deleted_people (generation, partition) VALUES (?1, ?2)",
        key,
    )?;
    for table in ["partitions", "totals", "allocations", "history"] {
        let delete = format!("DELETE FROM {table} WHERE generation = ?1 AND partition = ?2");
        transaction.execute(&delete, key)?;
    }
    transaction.commit()?;
    Ok(())
}

/// Deletes what an earlier release left of retired partitions: it deleted only the person rows, or not the history.
pub(super) fn delete_rest_of_retired(connection: &mut Connection) -> rusqlite::Result<()> {
    let left = "SELECT 1 FROM partitions JOIN deleted_people USING (generation, partition)
                UNION ALL SELECT 1 FROM deleted_people WHERE EXISTS
                (SELECT 1 FROM history WHERE history.generation = deleted_people.generation
                                         AND history.partition = deleted_people.partition)";
    if !connection.prepare(left)?.exists([])? {
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for table in ["partitions", "totals", "history"] {
        let delete = format!(
            "DELETE FROM {table} WHERE (generation, partition) IN
             (SELECT generation, partition FROM deleted_people)"
        );
        transaction.execute(&delete, [])?;
    }
    transaction.commit()
}

pub(super) fn known(connection: &Connection) -> Result<Vec<KnownPartition>, Fault> {
    let mut select = connection.prepare(
        "SELECT generation, partition, 0 FROM partitions
         UNION ALL SELECT generation, partition, 1 FROM deleted_people",
    )?;
    let rows = select.query_map([], |row| {
        let (generation, partition) = (Generation(row.get(0)?), PartitionId(row.get(1)?));
        let id = PartitionRef { generation, partition };
        Ok(KnownPartition { id, is_retired: row.get(2)? })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

pub(super) fn commit(
    connection: &mut Connection,
    partition: PartitionRef,
    commit: &Commit,
) -> Result<CasOutcome, Fault> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    if write_checkpoint(&transaction, partition, commit)? == 0 {
        return Ok(CasOutcome::Refused);
    }
    for (budget, totals) in &commit.totals {
        write_totals(&transaction, partition, budget, totals)?;
    }
    transaction.commit()?;
    Ok(CasOutcome::Applied)
}

fn write_checkpoint(
    transaction: &Transaction<'_>,
    partition: PartitionRef,
    commit: &Commit,
) -> rusqlite::Result<usize> {
    let Checkpoint { position, rows_position, identity, last_record, tally } = &commit.checkpoint;
    transaction
        .prepare_cached(
            "UPDATE partitions
             SET position = ?5, state_position = ?6, cluster_id = ?7, topic_id = ?8, last_offset = ?9,
                 last_fingerprint = ?10, applied = ?11, duplicates = ?12, dead_lettered = ?13
             WHERE generation = ?1 AND partition = ?2 AND epoch = ?3 AND position = ?4",
        )?
        .execute((
            partition.generation.0,
            partition.partition.0,
            commit.epoch.0.cast_signed(),
            commit.from.0.cast_signed(),
            position.0.cast_signed(),
            rows_position.0.cast_signed(),
            identity.as_ref().map(|identity| &identity.cluster_id),
            identity.as_ref().map(|identity| &identity.topic_id),
            last_record.map(|record| record.offset.0.cast_signed()),
            last_record.map(|record| record.fingerprint.cast_signed()),
            tally.applied.cast_signed(),
            tally.duplicates.cast_signed(),
            tally.dead_lettered.cast_signed(),
        ))
}

fn write_totals(
    transaction: &Transaction<'_>,
    partition: PartitionRef,
    budget: &BudgetId,
    totals: &BudgetTotals,
) -> Result<(), Fault> {
    let sums: Vec<u64> = totals.categories.iter().map(|category| category.basis_points).collect();
    let sums = serde_json::to_string(&sums).map_err(|error| Fault::Damage(error.to_string()))?;
    transaction
        .prepare_cached(
            "INSERT OR REPLACE INTO totals
             (generation, partition, budget, budget_position, people, updated_at_ms, sums, distribution)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?
        .execute((
            partition.generation.0,
            partition.partition.0,
            budget.as_str(),
            totals.position.0.cast_signed(),
            totals.people.cast_signed(),
            totals.updated_at_ms.cast_signed(),
            sums,
            totals.encode_distribution(),
        ))?;
    Ok(())
}

/// Reads a summary. The outer error concerns the file, the inner one only this budget.
pub(super) fn summary(
    connection: &Connection,
    generation: Generation,
    count: PartitionCount,
    budget: &BudgetId,
) -> Result<Result<BudgetSummary, DamagedTotals>, Fault> {
    match read_summary(connection, generation, count, budget) {
        Ok(summary) => Ok(Ok(summary)),
        Err(Fault::Damage(reason)) => Ok(Err(DamagedTotals(reason))),
        Err(fault) => Err(fault),
    }
}

fn read_summary(
    connection: &Connection,
    generation: Generation,
    count: PartitionCount,
    budget: &BudgetId,
) -> Result<BudgetSummary, Fault> {
    let mut select = connection.prepare_cached(
        "SELECT budget_position, people, updated_at_ms, sums, distribution, p.partition
         FROM partitions p LEFT JOIN totals t
              ON t.generation = p.generation AND t.partition = p.partition AND t.budget = ?3
         WHERE p.generation = ?1 AND p.partition < ?2",
    )?;
    let mut rows = select.query((generation.0, count.get(), budget.as_str()))?;
    let mut all = vec![None; count.get() as usize];
    while let Some(row) = rows.next()? {
        let has_totals = row.get::<_, Option<i64>>(0)?.is_some();
        let totals = if has_totals { totals_from(row)? } else { BudgetTotals::default() };
        if let Some(slot) = all.get_mut(row.get::<_, u32>(5)? as usize) {
            *slot = Some(totals);
        }
    }
    Ok(all)
}

fn number(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    row.get::<_, i64>(column).map(i64::cast_unsigned)
}

fn optional_number(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<u64>> {
    row.get::<_, Option<i64>>(column).map(|stored| stored.map(i64::cast_unsigned))
}

fn checkpoint(row: &Row<'_>) -> rusqlite::Result<Checkpoint> {
    let identity = match (row.get(4)?, row.get(5)?) {
        (Some(cluster_id), Some(topic_id)) => Some(LogIdentity { cluster_id, topic_id }),
        _ => None,
    };
    let last_record = match (optional_number(row, 6)?, optional_number(row, 7)?) {
        (Some(offset), Some(fingerprint)) => {
            Some(RecordFingerprint { offset: Offset(offset), fingerprint })
        }
        _ => None,
    };
    Ok(Checkpoint {
        position: Position(number(row, 2)?),
        rows_position: Position(number(row, 3)?),
        identity,
        last_record,
        tally: RecordCounts {
            applied: number(row, 8)?,
            duplicates: number(row, 9)?,
            dead_lettered: number(row, 10)?,
        },
    })
}

/// Decodes the first five columns.
fn totals_from(row: &Row<'_>) -> Result<BudgetTotals, Fault> {
    let sums: Vec<i64> =
        serde_json::from_slice(row.get_ref(3)?.as_bytes().map_err(rusqlite::Error::from)?)
            .map_err(|error| Fault::Damage(format!("a budget's sums: {error}")))?;
    let distribution = row.get_ref(4)?.as_blob().map_err(rusqlite::Error::from)?;
    BudgetTotals::from_columns(
        Position(number(row, 0)?),
        number(row, 1)?,
        number(row, 2)?,
        &sums,
        distribution,
    )
    .ok_or_else(|| Fault::Damage("the totals of a budget are inconsistent".into()))
}
