//! Erases former definitions from the embedded control topic, so that their bytes are in none of its files.
//!
//! An erasure that was interrupted is found at the next start, by a row of `unfinished_erasures` or by a forgotten
//! budget that still has former definitions.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Connection, Transaction, TransactionBehavior};
use schemas::{BudgetId, StoredBudget};

use super::HistoryFault;

/// Not a migration: earlier releases open the file as before.
const TABLE: &str = "
    CREATE TABLE IF NOT EXISTS unfinished_erasures (
        budget TEXT PRIMARY KEY
    ) STRICT;
";

/// Deletes all definitions of a budget but the last one, and overwrites them in all files.
///
/// `secure_delete` overwrites what is deleted, `VACUUM` the copies that moved cells leave in other pages, and the
/// checkpoint empties the write-ahead log.
pub(super) fn erase_former(
    connection: &mut Connection,
    budget: &BudgetId,
) -> Result<(), HistoryFault> {
    delete_former(connection, budget)?;
    connection.execute_batch("VACUUM")?;
    let busy: bool =
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
    if busy {
        return Err(HistoryFault::InUse);
    }
    let finish = "DELETE FROM unfinished_erasures WHERE budget = ?1";
    connection.execute(finish, [budget.as_str()])?;
    Ok(())
}

/// Deletes all definitions of a budget but the last one, and marks its erasure as unfinished.
pub(super) fn delete_former(
    connection: &mut Connection,
    budget: &BudgetId,
) -> Result<(), HistoryFault> {
    connection.pragma_update(None, "secure_delete", true)?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute_batch(TABLE)?;
    transaction.execute(
        "INSERT INTO unfinished_erasures (budget) VALUES (?1) ON CONFLICT DO NOTHING",
        [budget.as_str()],
    )?;
    let of_budget = definitions(&transaction)?.remove(budget).unwrap_or_default();
    for sequence in of_budget.former() {
        transaction.execute("DELETE FROM history WHERE sequence = ?1", [sequence])?;
    }
    transaction.commit()?;
    Ok(())
}

/// Finishes the erasures that were interrupted.
pub(super) fn finish_interrupted(connection: &mut Connection) -> Result<(), HistoryFault> {
    for budget in unfinished(connection)? {
        erase_former(connection, &budget)?;
        tracing::info!(%budget, "former definitions of a forgotten budget erased");
    }
    Ok(())
}

/// Returns the budgets whose erasure has been interrupted, also before it began.
pub(super) fn unfinished(connection: &mut Connection) -> Result<BTreeSet<BudgetId>, HistoryFault> {
    let transaction = connection.transaction()?;
    let definitions = definitions(&transaction)?;
    let is_unfinished =
        |of_budget: &Definitions| of_budget.is_forgotten && !of_budget.former().is_empty();
    let mut unfinished: BTreeSet<BudgetId> = definitions
        .into_iter()
        .filter(|(_, of_budget)| is_unfinished(of_budget))
        .map(|(budget, _)| budget)
        .collect();
    let is_table_there = transaction
        .prepare(
            "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'unfinished_erasures'",
        )?
        .exists([])?;
    if is_table_there {
        let mut select = transaction.prepare("SELECT budget FROM unfinished_erasures")?;
        for budget in select.query_map([], |row| row.get::<_, String>(0))? {
            unfinished.extend(BudgetId::parse(&budget?));
        }
    }
    Ok(unfinished)
}

/// The definitions of one budget in the history.
#[derive(Default)]
struct Definitions {
    sequences: Vec<i64>,
    /// Whether the last one is of a forgotten budget.
    is_forgotten: bool,
}

impl Definitions {
    /// Returns the sequence numbers of all but the last one.
    fn former(&self) -> &[i64] {
        self.sequences.split_last().map_or(&[], |(_, former)| former)
    }
}

fn definitions(transaction: &Transaction<'_>) -> rusqlite::Result<BTreeMap<BudgetId, Definitions>> {
    let mut definitions: BTreeMap<BudgetId, Definitions> = BTreeMap::new();
    let mut select =
        transaction.prepare("SELECT sequence, definition FROM history ORDER BY sequence")?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        let Ok(json) = row.get_ref(1)?.as_bytes() else { continue };
        let Some(budget) = StoredBudget::id(json) else { continue };
        let of_budget = definitions.entry(budget).or_default();
        of_budget.sequences.push(row.get(0)?);
        of_budget.is_forgotten = is_forgotten(json);
    }
    Ok(definitions)
}

fn is_forgotten(json: &[u8]) -> bool {
    match StoredBudget::parse(json) {
        StoredBudget::Understood(budget) | StoredBudget::PartlyUnderstood { budget, .. } => {
            budget.person_salt.forgotten_at().is_some()
        }
        StoredBudget::Deleted { .. } | StoredBudget::Unreadable { .. } => false,
    }
}
