//! Erases former definitions from the embedded control topic, so that their bytes are in none of its files.

use rusqlite::{Connection, TransactionBehavior};
use schemas::{BudgetId, StoredBudget};

use super::HistoryFault;

/// Deletes all definitions of a budget but the last one, and overwrites them in all files.
///
/// `secure_delete` overwrites what is deleted, `VACUUM` the copies that moved cells leave in other pages, and the
/// checkpoint ends with an empty write-ahead log.
pub(super) fn erase_former(
    connection: &mut Connection,
    budget: &BudgetId,
) -> Result<(), HistoryFault> {
    connection.pragma_update(None, "secure_delete", true)?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut of_budget: Vec<i64> = Vec::new();
    {
        let mut select =
            transaction.prepare("SELECT sequence, definition FROM history ORDER BY sequence")?;
        let mut rows = select.query([])?;
        while let Some(row) = rows.next()? {
            let is_of_budget = |json: &[u8]| StoredBudget::id(json).as_ref() == Some(budget);
            if row.get_ref(1)?.as_bytes().is_ok_and(is_of_budget) {
                of_budget.push(row.get(0)?);
            }
        }
    }
    of_budget.pop();
    for sequence in of_budget {
        transaction.execute("DELETE FROM history WHERE sequence = ?1", [sequence])?;
    }
    transaction.commit()?;
    connection.execute_batch("VACUUM")?;
    let busy: bool =
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
    if busy { Err(HistoryFault::InUse) } else { Ok(()) }
}
