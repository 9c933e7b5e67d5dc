//! The revoked personal codes in the embedded control topic: a table with a row for each budget.
//!
//! `allocator codes revoke` is another process than the one that serves. So a thread watches the file for commits of
//! other connections, and reads the table after each.

use std::path::Path;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, TransactionBehavior};
use schemas::{BudgetId, RevokedCodes, SerialSet, StoredRevocations};
use tokio::sync::watch;

use super::{SCHEMA, SqliteOpenError};
use crate::control::revocations::{self, RevokeError};
use crate::sqlite;

/// Interval at which the file is watched.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// Not a migration: earlier releases open the file as before.
const TABLE: &str = "
    CREATE TABLE IF NOT EXISTS revoked_codes (
        budget TEXT PRIMARY KEY,
        record TEXT NOT NULL
    ) STRICT;
";

/// Watches the table until dropped.
pub(super) struct RevocationWatcher {
    /// Dropping it ends the thread.
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl RevocationWatcher {
    /// Reads the table into `known`, and starts the thread.
    pub fn start(path: &Path, known: watch::Sender<RevokedCodes>) -> Result<Self, SqliteOpenError> {
        let connection = sqlite::open_to_read(path, &SCHEMA)?;
        let unusable = |error: rusqlite::Error| SqliteOpenError::unusable(path, error);
        let mut version = data_version(&connection).map_err(unusable)?;
        update(&connection, &known).map_err(unusable)?;
        known.send_modify(RevokedCodes::set_loaded);
        let (stop, stopped) = mpsc::channel();
        let watch = move || {
            while stopped.recv_timeout(POLL_INTERVAL) == Err(mpsc::RecvTimeoutError::Timeout) {
                let read = data_version(&connection).and_then(|now| {
                    if now != version {
                        update(&connection, &known)?;
                    }
                    Ok(now)
                });
                match read {
                    Ok(now) => version = now,
                    // The version stays the one before, so that the table is read at the next interval.
                    Err(error) => {
                        tracing::warn!(%error, "failed to read the revoked codes, retrying")
                    }
                }
            }
        };
        let thread = std::thread::Builder::new().name("revoked-codes".into()).spawn(watch);
        let thread = thread.map_err(|error| SqliteOpenError::unusable(path, error))?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for RevocationWatcher {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was printed.
            let _ = thread.join();
        }
    }
}

/// Returns a number that changes with each commit of another connection.
fn data_version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "data_version", |row| row.get(0))
}

fn update(connection: &Connection, known: &watch::Sender<RevokedCodes>) -> rusqlite::Result<()> {
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
