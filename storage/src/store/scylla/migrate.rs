//! Brings the tables up to date: each migration once, in order, also when several processes start at once.
//!
//! One partition of one table says it all: a row for each migration that was applied, and in a static column who is
//! applying some now. That lock expires by itself, and a migration is only recorded by who still holds it. All of
//! it is read and written by lightweight transactions.

use std::time::Duration;

use schemas::cql::Migration;
use scylla::client::session::Session;
use scylla::statement::{Consistency, Statement};
use tokio::time::sleep;
use uuid::Uuid;

use super::session::{KeyspaceName, any_row, change_schema, corrupt, outcome, unavailable};
use crate::store::{Conditional, StoreError};

const CREATE_TABLE: &str = "CREATE TABLE IF NOT EXISTS schema_migrations (\
                            id text, version int, name text, migrator uuid static, \
                            PRIMARY KEY (id, version))";
const VERSIONS: &str = "SELECT version FROM schema_migrations WHERE id = 'schema'";
/// The lock outlives any migration that makes progress, in seconds by the server's clock.
const LOCK: &str = "UPDATE schema_migrations USING TTL 60 SET migrator = ? WHERE id = 'schema' \
                    IF migrator = NULL";
const RECORD: &str = "UPDATE schema_migrations SET name = ? WHERE id = 'schema' AND version = ? \
                      IF migrator = ?";
const UNLOCK: &str = "DELETE migrator FROM schema_migrations WHERE id = 'schema' IF migrator = ?";

/// How often a process that found the lock taken looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Applies what is missing. Waits while another process does so; the caller bounds the time.
pub(super) async fn migrate(
    session: &Session,
    keyspace: &KeyspaceName,
    migrations: &[Migration],
) -> Result<(), StoreError> {
    if !is_begun(session, keyspace).await? {
        change_schema(session, CREATE_TABLE).await?;
    }
    let me = Uuid::new_v4();
    while !missing(migrations, &versions(session).await?)?.is_empty() {
        if conditional(session, LOCK, (me,)).await? == Conditional::Refused {
            sleep(LOOK_AGAIN).await;
            continue;
        }
        let applied = apply_missing(session, migrations, me).await;
        // Whether it worked or not; a lock that stays behind expires.
        let unlocked = conditional(session, UNLOCK, (me,)).await;
        applied?;
        unlocked?;
    }
    Ok(())
}

/// Whether everything was applied.
pub(super) async fn check(
    session: &Session,
    keyspace: &KeyspaceName,
    migrations: &[Migration],
) -> Result<(), StoreError> {
    let applied = match is_begun(session, keyspace).await? {
        true => versions(session).await?,
        false => Vec::new(),
    };
    match missing(migrations, &applied)?.first() {
        None => Ok(()),
        Some(Migration { version, name, .. }) => Err(corrupt(format!(
            "its schema lacks migration {version} ({name}): start this release's processor first"
        ))),
    }
}

async fn is_begun(session: &Session, keyspace: &KeyspaceName) -> Result<bool, StoreError> {
    let table = "SELECT table_name FROM system_schema.tables \
                 WHERE keyspace_name = ? AND table_name = 'schema_migrations'";
    any_row(session, table, (keyspace.to_string(),)).await
}

async fn apply_missing(
    session: &Session,
    migrations: &[Migration],
    me: Uuid,
) -> Result<(), StoreError> {
    // Read again: the lock's last holder may have done it all.
    for migration in missing(migrations, &versions(session).await?)? {
        for statement in migration.statements() {
            change_schema(session, &statement).await?;
        }
        let version = i32::try_from(migration.version).map_err(corrupt)?;
        let recorded = conditional(session, RECORD, (migration.name, version, me)).await?;
        if recorded == Conditional::Refused {
            return Err(unavailable("lost the migration lock; another process goes on"));
        }
        tracing::info!(version, name = migration.name, "applied a migration");
    }
    Ok(())
}

/// The migrations that are yet to be applied.
fn missing<'a>(
    migrations: &'a [Migration],
    applied: &[i32],
) -> Result<Vec<&'a Migration>, StoreError> {
    let known = |version: i32| {
        migrations.iter().any(|known| i64::from(known.version) == i64::from(version))
    };
    if let Some(newer) = applied.iter().find(|version| !known(**version)) {
        return Err(corrupt(format!(
            "its schema has migration {newer}, which this program does not know: run a newer one"
        )));
    }
    let is_applied = |migration: &&Migration| {
        applied.iter().any(|version| i64::from(*version) == i64::from(migration.version))
    };
    Ok(migrations.iter().filter(|migration| !is_applied(migration)).collect())
}

async fn versions(session: &Session) -> Result<Vec<i32>, StoreError> {
    let mut statement = Statement::new(VERSIONS);
    statement.set_consistency(Consistency::LocalSerial);
    let answer = session.query_unpaged(statement, ()).await.map_err(unavailable)?;
    let rows = answer.into_rows_result().map_err(corrupt)?;
    let mut versions = Vec::new();
    for row in rows.rows::<(Option<i32>,)>().map_err(corrupt)? {
        // No version: the row that stands for the static column alone.
        versions.extend(row.map_err(corrupt)?.0);
    }
    Ok(versions)
}

async fn conditional(
    session: &Session,
    text: &str,
    values: impl scylla::serialize::row::SerializeRow,
) -> Result<Conditional, StoreError> {
    outcome(session.query_unpaged(text, values).await.map_err(unavailable)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const THREE: &[Migration] = &[
        Migration { version: 1, name: "first", text: "" },
        Migration { version: 2, name: "second", text: "" },
        Migration { version: 3, name: "third", text: "" },
    ];

    #[test]
    fn what_was_applied_is_not_applied_again() {
        for (applied, expected) in
            [(&[][..], &["first", "second", "third"][..]), (&[1, 2], &["third"]), (&[1, 2, 3], &[])]
        {
            let names: Vec<_> = missing(THREE, applied).unwrap().iter().map(|m| m.name).collect();
            assert_eq!(names, expected);
        }
    }

    #[test]
    fn a_schema_newer_than_the_program_is_refused() {
        assert!(matches!(missing(THREE, &[1, 2, 3, 4]), Err(StoreError::Corrupt(_))));
    }
}
