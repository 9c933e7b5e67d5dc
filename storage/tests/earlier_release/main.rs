//! Opens the embedded databases of an earlier release: they must stay readable in all later releases.
//!
//! This folder holds all data that an earlier release wrote:
//! - `schema/`: the schema of each database, without rows;
//! - `one_partition/`: rows of one partition that halted at a dead letter;
//! - `data_folder/`: rows of a whole deployment, which the `allocator` test of the same name runs on;
//! - `keyspace.cql`: a ScyllaDB keyspace with its rows, for `tests/scylla.rs`.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::path::{Path, PathBuf};

use rusqlite::Connection;
use schemas::job::JobKind;
use schemas::{BudgetId, Generation, Offset, PartitionCount, PartitionId, PersonKey, Position};
use storage::control::BudgetDefinitions;
use storage::control::sqlite::SqliteControlTopic;
use storage::jobs::JobStore;
use storage::log::sqlite::{SqliteDeadLetterJournal, SqliteLog, SqliteReader};
use storage::log::{LogReader, LogSource};
use storage::store::sqlite::{SqliteOpenError, SqliteStore};
use storage::store::{
    Checkpoints, Epoch, Generations, KnownPartition, PartitionRef, People, StoreError,
};

const LOG: &str = concat!(include_str!("schema/log.sql"), include_str!("one_partition/log.sql"));
const STORE: &str =
    concat!(include_str!("schema/store.sql"), include_str!("one_partition/store.sql"));
const DEFINITIONS: &str =
    concat!(include_str!("schema/definitions.sql"), include_str!("one_partition/definitions.sql"));

const PARTITION: PartitionRef =
    PartitionRef { generation: Generation::FIRST, partition: PartitionId(0) };

fn write(dir: &Path, name: &str, sql: &str) -> PathBuf {
    let path = dir.join(name);
    Connection::open(&path).unwrap().execute_batch(sql).unwrap();
    path
}

fn one() -> PartitionCount {
    PartitionCount::new(1).unwrap()
}

#[tokio::test]
async fn a_log_of_an_earlier_release_opens_with_its_records() {
    let dir = tempfile::tempdir().unwrap();
    let path = write(dir.path(), "log.db", LOG);
    let log = SqliteLog::open(&path, one()).unwrap();
    assert_eq!(log.source().unwrap().identity().cluster_id, "a cluster");
    let reader = SqliteReader::open(&path, one()).unwrap();
    assert_eq!(reader.bounds(PartitionId(0)).await.unwrap().high, Position(2));
    SqliteDeadLetterJournal::open(&path).unwrap();
}

#[tokio::test]
async fn a_store_of_an_earlier_release_opens_with_its_rows() {
    let dir = tempfile::tempdir().unwrap();
    let path = write(dir.path(), "store.db", STORE);
    for store in [SqliteStore::open_existing(&path), SqliteStore::open(&path)] {
        let store = store.unwrap();
        let stored = store.read_partition(PARTITION).await.unwrap().unwrap();
        assert_eq!((stored.epoch, stored.checkpoint.position), (Epoch(3), Position(2)));
        assert_eq!(stored.checkpoint.rows_position, Position(1));
        let (budget, totals) = &stored.totals[0];
        assert_eq!((budget, totals.people), (&BudgetId::parse("taxes").unwrap(), 1));
        let person = PersonKey::from_bytes([7; PersonKey::BYTES]);
        let row = store.person(PARTITION, &person).await.unwrap().unwrap();
        assert_eq!((row.offset, row.basis_points), (Offset(1), vec![4_000, 6_000]));
        let registry = store.registry().await.unwrap().unwrap();
        assert_eq!(registry.active.generation, Generation::FIRST);
        let reports = store.reports(Generation::FIRST, one()).await.unwrap();
        assert_eq!(reports[0].as_ref().unwrap().stall_reason.as_deref(), Some("it halted"));
        assert_eq!(store.jobs().await.unwrap()[0].kind, JobKind::Audit);
    }
}

#[test]
fn definitions_of_an_earlier_release_open_with_their_history() {
    let dir = tempfile::tempdir().unwrap();
    let path = write(dir.path(), "definitions.db", DEFINITIONS);
    let topic = SqliteControlTopic::open(&path).unwrap();
    assert!(topic.catalog().get("taxes").unwrap().frozen);
}

#[test]
fn a_new_database_has_the_schema_of_an_earlier_release_and_additions_that_it_ignores() {
    let dir = tempfile::tempdir().unwrap();
    let schema = |path: &Path| -> Vec<(String, String)> {
        let connection = Connection::open(path).unwrap();
        let mut select = connection
            .prepare("SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name")
            .unwrap();
        let squeeze = |sql: String| sql.split_whitespace().collect::<Vec<_>>().join(" ");
        let rows = select.query_map([], |row| Ok((row.get(0)?, squeeze(row.get(1)?))));
        rows.unwrap().map(Result::unwrap).collect()
    };
    let marks = |path: &Path| -> (i32, i32) {
        let connection = Connection::open(path).unwrap();
        let pragma = |name| connection.pragma_query_value(None, name, |row| row.get(0)).unwrap();
        (pragma("application_id"), pragma("user_version"))
    };
    let new = |name: &str| dir.path().join(name);
    drop(SqliteStore::open(&new("new-store.db")).unwrap());
    drop(SqliteLog::open(&new("new-log.db"), one()).unwrap());
    drop(SqliteControlTopic::open(&new("new-definitions.db")).unwrap());
    for (name, sql) in [("store", STORE), ("log", LOG), ("definitions", DEFINITIONS)] {
        let (earlier, new) = (write(dir.path(), name, sql), new(&format!("new-{name}.db")));
        let (added, kept): (Vec<_>, Vec<_>) =
            schema(&new).into_iter().partition(|(table, _)| name == "store" && table == "history");
        assert_eq!(kept, schema(&earlier), "{name}");
        assert_eq!(added.len(), usize::from(name == "store"));
        assert_eq!(marks(&new), marks(&earlier), "{name}");
    }
}

#[test]
fn databases_of_newer_and_unreleased_versions_are_rejected_unchanged() {
    let dir = tempfile::tempdir().unwrap();
    for version in [1, 2, 4] {
        let path = write(dir.path(), &format!("store-{version}.db"), STORE);
        Connection::open(&path).unwrap().pragma_update(None, "user_version", version).unwrap();
        let rejected = SqliteStore::open(&path).err().unwrap();
        assert!(matches!(rejected, SqliteOpenError::Foreign { .. }), "{version}: {rejected}");
        let connection = Connection::open(&path).unwrap();
        let found: i32 =
            connection.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
        assert_eq!(found, version);
    }
}

#[tokio::test]
async fn totals_that_an_earlier_release_left_of_a_retired_generation_are_deleted() {
    let dir = tempfile::tempdir().unwrap();
    // Earlier releases deleted only the person rows.
    let retired = format!(
        "{STORE} DELETE FROM allocations; INSERT INTO deleted_people (generation, partition) VALUES (1, 0);"
    );
    let path = write(dir.path(), "store.db", &retired);
    let store = SqliteStore::open(&path).unwrap();
    assert_eq!(store.read_partition(PARTITION).await, Ok(None));
    let known = KnownPartition { id: PARTITION, is_retired: true };
    assert_eq!(store.known_partitions().await, Ok(vec![known]));
    let claimed = store.claim(PARTITION, Some(Epoch(3)), Epoch(4), "an owner").await;
    assert!(matches!(claimed, Err(StoreError::Corrupt(_))), "{claimed:?}");
}
