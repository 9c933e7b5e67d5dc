//! Migrates the tables: each migration once, in order, also when several processes start at once.
//!
//! There are two series of migrations, numbered on their own: those that every process has to know, and additions,
//! which an earlier release ignores, so that it can be started again.
//!
//! For each series, one partition of one table holds a row for each applied migration, and in a static column the lock:
//! the id of the process that is migrating. The lock expires by itself, and only its holder can record a migration. All
//! of it is read and written by lightweight transactions.

use std::time::Duration;

use schemas::cql::{ADDITIONS, MIGRATIONS, Migration};
use scylla::client::session::Session;
use scylla::statement::{Consistency, Statement};
use tokio::time::sleep;
use uuid::Uuid;

use super::session::{KeyspaceName, any_row, change_schema, corrupt, outcome, unavailable};
use crate::store::{CasOutcome, StoreError};

const CREATE_TABLE: &str = "CREATE TABLE IF NOT EXISTS schema_migrations (\
                            id text, version int, name text, migrator uuid static, \
                            PRIMARY KEY (id, version))";
const VERSIONS: &str = "SELECT version FROM schema_migrations WHERE id = ?";
/// The lock expires after 60 seconds by the server's clock, longer than any migration takes.
const LOCK: &str = "UPDATE schema_migrations USING TTL 60 SET migrator = ? WHERE id = ? \
                    IF migrator = NULL";
const RECORD: &str = "UPDATE schema_migrations SET name = ? WHERE id = ? AND version = ? \
                      IF migrator = ?";
const UNLOCK: &str = "DELETE migrator FROM schema_migrations WHERE id = ? IF migrator = ?";

/// Interval at which a process waits for the lock.
const LOCK_POLL_INTERVAL: Duration = Duration::from_millis(100);

/// A series of migrations.
#[derive(Debug, Clone, Copy)]
pub(super) struct Series {
    /// Key of the series in the table.
    id: &'static str,
    migrations: &'static [Migration],
    /// Whether a process may use a schema with later migrations than it knows.
    ignores_later: bool,
}

/// Migrations that every process has to know.
pub(super) const REQUIRED: Series =
    Series { id: "schema", migrations: MIGRATIONS, ignores_later: false };
/// Migrations that an earlier release ignores.
pub(super) const ADDITIONAL: Series =
    Series { id: "additions", migrations: ADDITIONS, ignores_later: true };

/// Applies the pending migrations. Waits while another process migrates; the caller bounds the time.
pub(super) async fn migrate(
    session: &Session,
    keyspace: &KeyspaceName,
    series: &Series,
) -> Result<(), StoreError> {
    if !has_migrations_table(session, keyspace).await? {
        change_schema(session, CREATE_TABLE).await?;
    }
    let me = Uuid::new_v4();
    while !series.pending(&versions(session, series).await?)?.is_empty() {
        if conditional(session, LOCK, (me, series.id)).await? == CasOutcome::Refused {
            sleep(LOCK_POLL_INTERVAL).await;
            continue;
        }
        let applied = apply_pending(session, series, me).await;
        // Also after an error; a lock that is not released expires.
        let unlocked = conditional(session, UNLOCK, (series.id, me)).await;
        applied?;
        unlocked?;
    }
    Ok(())
}

/// Checks that all migrations are applied.
pub(super) async fn check(
    session: &Session,
    keyspace: &KeyspaceName,
    series: &Series,
) -> Result<(), StoreError> {
    let applied = match has_migrations_table(session, keyspace).await? {
        true => versions(session, series).await?,
        false => Vec::new(),
    };
    match series.pending(&applied)?.first() {
        None => Ok(()),
        Some(Migration { version, name, .. }) => Err(corrupt(format!(
            "its schema lacks migration {version} ({name}): start the processor of this release first"
        ))),
    }
}

async fn has_migrations_table(
    session: &Session,
    keyspace: &KeyspaceName,
) -> Result<bool, StoreError> {
    let table = "SELECT table_name FROM system_schema.tables \
                 WHERE keyspace_name = ? AND table_name = 'schema_migrations'";
    any_row(session, table, (keyspace.to_string(),)).await
}

async fn apply_pending(session: &Session, series: &Series, me: Uuid) -> Result<(), StoreError> {
    // Read again: the previous holder of the lock may have applied them.
    for migration in series.pending(&versions(session, series).await?)? {
        for statement in migration.statements() {
            change_schema(session, &statement).await?;
        }
        let version = i32::try_from(migration.version).map_err(corrupt)?;
        let record = (migration.name, series.id, version, me);
        let recorded = conditional(session, RECORD, record).await?;
        if recorded == CasOutcome::Refused {
            return Err(unavailable("lost the migration lock to another process"));
        }
        tracing::info!(version, name = migration.name, "schema migration applied");
    }
    Ok(())
}

impl Series {
    /// Returns the migrations that are not applied.
    fn pending(&self, applied: &[i32]) -> Result<Vec<&'static Migration>, StoreError> {
        let known = |version: i32| {
            self.migrations.iter().any(|known| i64::from(known.version) == i64::from(version))
        };
        if let Some(newer) = applied.iter().find(|version| !known(**version))
            && !self.ignores_later
        {
            return Err(corrupt(format!(
                "its schema has migration {newer}, which this program does not know: run a newer one"
            )));
        }
        let is_applied = |migration: &&Migration| {
            applied.iter().any(|version| i64::from(*version) == i64::from(migration.version))
        };
        Ok(self.migrations.iter().filter(|migration| !is_applied(migration)).collect())
    }
}

async fn versions(session: &Session, series: &Series) -> Result<Vec<i32>, StoreError> {
    let mut statement = Statement::new(VERSIONS);
    statement.set_consistency(Consistency::LocalSerial);
    let response = session.query_unpaged(statement, (series.id,)).await.map_err(unavailable)?;
    let rows = response.into_rows_result().map_err(corrupt)?;
    let mut versions = Vec::new();
    for row in rows.rows::<(Option<i32>,)>().map_err(corrupt)? {
        // A row without version only carries the static column.
        versions.extend(row.map_err(corrupt)?.0);
    }
    Ok(versions)
}

async fn conditional(
    session: &Session,
    text: &str,
    values: impl scylla::serialize::row::SerializeRow,
) -> Result<CasOutcome, StoreError> {
    outcome(session.query_unpaged(text, values).await.map_err(unavailable)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERIES: Series = Series {
        id: "schema",
        migrations: &[
            Migration { version: 1, name: "first", text: "" },
            Migration { version: 2, name: "second", text: "" },
            Migration { version: 3, name: "third", text: "" },
        ],
        ignores_later: false,
    };

    #[test]
    fn only_pending_migrations_are_applied() {
        for (applied, expected) in
            [(&[][..], &["first", "second", "third"][..]), (&[1, 2], &["third"]), (&[1, 2, 3], &[])]
        {
            let names: Vec<_> = SERIES.pending(applied).unwrap().iter().map(|m| m.name).collect();
            assert_eq!(names, expected);
        }
    }

    #[test]
    fn a_schema_newer_than_the_program_is_rejected() {
        assert!(matches!(SERIES.pending(&[1, 2, 3, 4]), Err(StoreError::Corrupt(_))));
    }

    #[test]
    fn later_additions_than_the_program_knows_are_ignored() {
        let series = Series { ignores_later: true, ..SERIES };
        let pending = series.pending(&[1, 2, 4]).unwrap();
        assert_eq!(pending.iter().map(|m| m.version).collect::<Vec<_>>(), [3]);
    }
}
