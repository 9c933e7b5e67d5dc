//! History points.

use std::ops::Range;

use rusqlite::{Connection, Row, TransactionBehavior};
use schemas::{BudgetId, HistoryInstant, HistoryPoint, HistoryStep};

use super::Fault;
use super::partitions::is_retired;
use crate::store::PartitionRef;

/// Creates the table. An earlier release ignores it.
pub(super) const ADDITION: &str = "
    CREATE TABLE IF NOT EXISTS history (
        generation INTEGER NOT NULL,
        partition INTEGER NOT NULL,
        step INTEGER NOT NULL,
        budget TEXT NOT NULL,
        first_instant INTEGER NOT NULL,
        end_instant INTEGER NOT NULL,
        state BLOB NOT NULL,
        PRIMARY KEY (generation, partition, step, budget, first_instant)
    ) STRICT, WITHOUT ROWID;";

/// Points per read of a scan.
const PAGE_POINTS: u32 = 1_000;

/// A budget and a first instant: the place of a point in the history of a step.
pub(super) type PointKey = (BudgetId, HistoryInstant);

/// Writes points, and deletes the expired ones of the same budgets and steps.
pub(super) fn write(
    connection: &mut Connection,
    partition: PartitionRef,
    points: &[(BudgetId, HistoryPoint)],
    now_ms: u64,
) -> Result<(), Fault> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    if is_retired(&transaction, partition)? {
        return Ok(());
    }
    let (generation, number) = (partition.generation.0, partition.partition.0);
    for (budget, point) in points {
        let step = point.step.number();
        transaction
            .prepare_cached(
                "INSERT OR REPLACE INTO history
                 (generation, partition, step, budget, first_instant, end_instant, state)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?
            .execute((
                generation,
                number,
                step,
                budget.as_str(),
                point.first.0,
                point.end.0,
                point.encode_state(),
            ))?;
        let oldest_kept = point.step.oldest_kept(now_ms);
        // A point begins before it ends: the first condition bounds the scan of the key.
        transaction
            .prepare_cached(
                "DELETE FROM history
                 WHERE generation = ?1 AND partition = ?2 AND step = ?3 AND budget = ?4
                       AND first_instant < ?5 AND end_instant <= ?5",
            )?
            .execute((generation, number, step, budget.as_str(), oldest_kept.0))?;
    }
    transaction.commit()?;
    Ok(())
}

/// Reads the points of a budget that hold at any of `instants`, in order.
pub(super) fn read(
    connection: &mut Connection,
    partition: PartitionRef,
    budget: &BudgetId,
    step: HistoryStep,
    instants: &Range<HistoryInstant>,
) -> Result<Vec<HistoryPoint>, Fault> {
    // The points of a budget do not overlap: only the last one before the range can reach into it.
    let mut select = connection.prepare_cached(
        "SELECT first_instant, state FROM history
         WHERE generation = ?1 AND partition = ?2 AND step = ?3 AND budget = ?4 AND first_instant < ?6
               AND first_instant >= coalesce(
                   (SELECT max(first_instant) FROM history
                    WHERE generation = ?1 AND partition = ?2 AND step = ?3 AND budget = ?4
                          AND first_instant <= ?5), ?5)
         ORDER BY first_instant",
    )?;
    let mut rows = select.query((
        partition.generation.0,
        partition.partition.0,
        step.number(),
        budget.as_str(),
        instants.start.0,
        instants.end.0,
    ))?;
    let mut points = Vec::new();
    while let Some(row) = rows.next()? {
        let point = decode(step, row)?;
        if point.overlaps(instants) {
            points.push(point);
        }
    }
    Ok(points)
}

/// Reads the next points of a step after a key, ordered by budget and instant; empty at the end.
pub(super) fn read_page(
    connection: &mut Connection,
    partition: PartitionRef,
    step: HistoryStep,
    after: Option<&PointKey>,
) -> Result<Vec<(BudgetId, HistoryPoint)>, Fault> {
    // No budget has the empty id.
    let (budget, first) = after.map_or(("", 0), |(budget, first)| (budget.as_str(), first.0));
    let mut select = connection.prepare_cached(
        "SELECT first_instant, state, budget FROM history
         WHERE generation = ?1 AND partition = ?2 AND step = ?3
               AND (budget, first_instant) > (?4, ?5)
         ORDER BY budget, first_instant LIMIT ?6",
    )?;
    let mut rows = select.query((
        partition.generation.0,
        partition.partition.0,
        step.number(),
        budget,
        first,
        PAGE_POINTS,
    ))?;
    let mut page = Vec::new();
    while let Some(row) = rows.next()? {
        let budget = BudgetId::parse(row.get_ref(2)?.as_str().map_err(rusqlite::Error::from)?)
            .map_err(|fault| Fault::Damage(format!("a budget's id {fault}")))?;
        page.push((budget, decode(step, row)?));
    }
    Ok(page)
}

/// Decodes a point from the first two columns: the first instant and the state.
fn decode(step: HistoryStep, row: &Row<'_>) -> Result<HistoryPoint, Fault> {
    let first = HistoryInstant(row.get(0)?);
    let state = row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?;
    HistoryPoint::decode(step, first, state).map_err(|fault| Fault::Damage(fault.to_string()))
}
