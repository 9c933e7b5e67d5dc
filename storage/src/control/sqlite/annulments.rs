//! The operators' list of annulments in the embedded control topic: a table with a row for each budget, read whenever
//! it is asked for.

use rusqlite::{Connection, OptionalExtension, TransactionBehavior};
use schemas::{AnnulmentChange, AnnulmentRegister, BudgetId, StoredAnnulments};

use crate::control::annulments::{self, AnnulmentChangeError, ChangedRegister};

/// Not a migration: earlier releases open the file as before.
const TABLE: &str = "
    CREATE TABLE IF NOT EXISTS annulments (
        budget TEXT PRIMARY KEY,
        document TEXT NOT NULL
    ) STRICT;
";

/// Reads a budget's annulments.
pub(super) fn read(
    connection: &Connection,
    budget: &BudgetId,
) -> rusqlite::Result<StoredAnnulments> {
    let is_table_there = connection
        .prepare("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'annulments'")?
        .exists([])?;
    if !is_table_there {
        return Ok(StoredAnnulments::default());
    }
    let select = "SELECT document FROM annulments WHERE budget = ?1";
    let document: Option<String> =
        connection.query_row(select, [budget.as_str()], |row| row.get(0)).optional()?;
    let parsed = document.map(|document| StoredAnnulments::parse(budget, document.as_bytes()));
    Ok(parsed.unwrap_or_default())
}

/// Changes a budget's annulments, and returns the resulting ones.
pub(super) fn change(
    connection: &mut Connection,
    budget: &BudgetId,
    change: &AnnulmentChange,
) -> rusqlite::Result<Result<AnnulmentRegister, AnnulmentChangeError>> {
    // Excludes other processes from the read to the commit.
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute_batch(TABLE)?;
    let changed = annulments::change(read(&transaction, budget)?, change);
    if let Ok(ChangedRegister { register, is_changed: true }) = &changed {
        transaction.execute(
            "INSERT INTO annulments (budget, document) VALUES (?1, ?2)
                ON CONFLICT (budget) DO UPDATE SET document = excluded.document",
            (budget.as_str(), StoredAnnulments::document(budget, register)),
        )?;
    }
    transaction.commit()?;
    Ok(changed.map(|changed| changed.register))
}
