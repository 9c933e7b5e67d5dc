//! The migrator: brings a keyspace up to this code's schema, one process at a time.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use schemas::cql::{MIGRATIONS, Migration};
use scylla::client::session::Session;

use super::{applied, unavailable};
use crate::store::{Conditional, StoreError};

/// The lock's row: no migration has this number.
const LOCK: i32 = 0;
/// A process that dies with the lock loses it after so many seconds.
const LOCK_SECONDS: i32 = 60;
const LOCK_PAUSE: Duration = Duration::from_millis(200);
const PATIENCE: Duration = Duration::from_secs(90);

pub(super) async fn migrate(session: &Session) -> Result<(), StoreError> {
    let table = "CREATE TABLE IF NOT EXISTS schema_migrations (version int PRIMARY KEY, name text, at_ms bigint)";
    session.query_unpaged(table, &[]).await.map_err(unavailable)?;
    let owner = uuid::Uuid::new_v4().to_string();
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !is_current(session).await? {
        if lock(session, &owner).await? {
            let outcome = apply_missing(session).await;
            unlock(session, &owner).await?;
            outcome?;
        } else if tokio::time::Instant::now() > deadline {
            return Err(StoreError::Unavailable(
                "another process keeps migrating the schema".into(),
            ));
        } else {
            tokio::time::sleep(LOCK_PAUSE).await;
        }
    }
    Ok(())
}

async fn applied_versions(session: &Session) -> Result<Vec<i32>, StoreError> {
    let result = session
        .query_unpaged("SELECT version FROM schema_migrations", &[])
        .await
        .map_err(unavailable)?;
    let rows = result.into_rows_result().map_err(unavailable)?;
    let versions = rows.rows::<(i32,)>().map_err(unavailable)?;
    versions.map(|row| row.map(|(version,)| version).map_err(unavailable)).collect()
}

async fn is_current(session: &Session) -> Result<bool, StoreError> {
    let there = applied_versions(session).await?;
    let newest = MIGRATIONS.len() as i32;
    if let Some(newer) = there.iter().find(|version| **version > newest) {
        return Err(StoreError::Corrupt(format!(
            "the schema is at version {newer}, newer than this program's {newest}"
        )));
    }
    Ok(MIGRATIONS.iter().all(|migration| there.contains(&(migration.version as i32))))
}

async fn lock(session: &Session, owner: &str) -> Result<bool, StoreError> {
    let statement = format!(
        "INSERT INTO schema_migrations (version, name) VALUES (?, ?) IF NOT EXISTS USING TTL {LOCK_SECONDS}"
    );
    let result = session.query_unpaged(statement, (LOCK, owner)).await.map_err(unavailable)?;
    Ok(applied(result)? == Conditional::Applied)
}

async fn unlock(session: &Session, owner: &str) -> Result<(), StoreError> {
    let statement = "DELETE FROM schema_migrations WHERE version = ? IF name = ?";
    session.query_unpaged(statement, (LOCK, owner)).await.map_err(unavailable)?;
    Ok(())
}

async fn apply_missing(session: &Session) -> Result<(), StoreError> {
    let there = applied_versions(session).await?;
    for migration in
        MIGRATIONS.iter().filter(|migration| !there.contains(&(migration.version as i32)))
    {
        apply(session, migration).await?;
        tracing::info!(version = migration.version, name = migration.name, "schema migrated");
    }
    Ok(())
}

async fn apply(session: &Session, migration: &Migration) -> Result<(), StoreError> {
    for statement in migration.statements() {
        session.query_unpaged(statement, &[]).await.map_err(unavailable)?;
    }
    session.await_schema_agreement().await.map_err(unavailable)?;
    let now_ms =
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64);
    let record =
        "INSERT INTO schema_migrations (version, name, at_ms) VALUES (?, ?, ?) IF NOT EXISTS";
    session
        .query_unpaged(record, (migration.version as i32, migration.name, now_ms))
        .await
        .map_err(unavailable)?;
    Ok(())
}
