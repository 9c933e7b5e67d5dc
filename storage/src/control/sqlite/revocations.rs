//! The revoked personal codes in the embedded control topic: a table with a row for each budget.
//!
//! `allocator codes revoke` is another process than the one that serves: `watcher` notices its commits.

use rusqlite::{Connection, OptionalExtension, TransactionBehavior};
use schemas::{BudgetId, RevokedCodes, SerialSet, StoredRevocations};
use tokio::sync::watch;

use crate::control::revocations::{self, RevokeError};

/// Not a migration: earlier releases open the file as before.
const TABLE: &str = "
    CREATE TABLE IF NOT EXISTS revoked_codes (
        budget TEXT PRIMARY KEY,
        record TEXT NOT NULL
    ) STRICT;
";

/// Reads the table into `known`.
pub(super) fn read(
    connection: &Connection,
    known: &watch::Sender<RevokedCodes>,
) -> rusqlite::Result<()> {
    if !is_table_there(connection)? {
        return Ok(());
    }
    let mut select = connection.prepare_cached("SELECT budget, record FROM revoked_codes")?;
    let rows =
        select.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?;
    for row in rows {
        let (budget, record) = row?;
        let Ok(budget) = BudgetId::parse(&budget) else { continue };
        let stored = StoredRevocations::parse(&budget, record.as_bytes());
        known.send_if_modified(|known| known.add(&budget, stored));
    }
    Ok(())
}

fn is_table_there(connection: &Connection) -> rusqlite::Result<bool> {
    connection
        .prepare("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'revoked_codes'")?
        .exists([])
}

/// Adds revoked codes to a budget's row, and returns all that are revoked then.
pub(super) fn revoke(
    connection: &mut Connection,
    budget: &BudgetId,
    serials: &SerialSet,
) -> rusqlite::Result<Result<SerialSet, RevokeError>> {
    // Excludes other processes from the read to the commit.
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute_batch(TABLE)?;
    let select = "SELECT record FROM revoked_codes WHERE budget = ?1";
    let record: Option<String> =
        transaction.query_row(select, [budget.as_str()], |row| row.get(0)).optional()?;
    let current = record.map(|record| StoredRevocations::parse(budget, record.as_bytes()));
    let revoked = match revocations::revoke(current.as_ref(), serials) {
        Ok(Some(next)) => {
            transaction.execute(
                "INSERT INTO revoked_codes (budget, record) VALUES (?1, ?2)
                    ON CONFLICT (budget) DO UPDATE SET record = excluded.record",
                (budget.as_str(), StoredRevocations::record(budget, &next)),
            )?;
            Ok(next)
        }
        Ok(None) => {
            let known = current.as_ref().and_then(StoredRevocations::serials);
            Ok(known.cloned().unwrap_or_default())
        }
        Err(refused) => Err(refused),
    };
    transaction.commit()?;
    Ok(revoked)
}
