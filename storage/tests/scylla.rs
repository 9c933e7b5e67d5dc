//! Properties of the store on ScyllaDB and Cassandra only, on the server at `SCYLLA_NODES`: schema migrations, lost
//! responses, and the exact writes. Start the server first: `local/up servers`.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

// Builders of the contract suites.
#[allow(dead_code)]
#[path = "contract/build.rs"]
mod build;
mod lossy_proxy;

use std::time::{Duration, Instant};

use build::{new_budget_id, person, row, totals};
use lossy_proxy::LossyProxy;
use schemas::{Generation, Offset, PartitionId, Position};
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use storage::jobs::JobStore;
use storage::log::LogIdentity;
use storage::store::scylla::{ScyllaConfig, ScyllaStore};
use storage::store::{
    CasOutcome, Checkpoint, Checkpoints, Commit, Epoch, Generations, PartitionRef, People,
    RecordCounts, RecordFingerprint, StoreError,
};

fn nodes() -> Vec<String> {
    let nodes = std::env::var("SCYLLA_NODES").unwrap_or_else(|_| {
        panic!("SCYLLA_NODES is not set: `local/up servers`, then eval \"$(local/env)\"")
    });
    nodes.split(',').map(str::to_owned).collect()
}

fn config(keyspace: &str) -> ScyllaConfig {
    ScyllaConfig {
        nodes: nodes(),
        keyspace: keyspace.parse().unwrap(),
        replication_factor: 1,
        datacenter: None,
        credentials: None,
        request_timeout: Duration::from_secs(10),
        connect_timeout: Duration::from_secs(60),
    }
}

/// Creates a keyspace for one test, and a session in addition to the adapter's.
async fn new_keyspace(name: &str) -> (ScyllaConfig, Session) {
    let session = SessionBuilder::new().known_nodes(nodes()).build().await.unwrap();
    let drop = format!("DROP KEYSPACE IF EXISTS {name}");
    session.query_unpaged(drop, ()).await.unwrap();
    (config(name), session)
}

const PARTITION: PartitionRef =
    PartitionRef { generation: Generation::FIRST, partition: PartitionId(3) };

fn checkpoint(position: u64) -> Checkpoint {
    Checkpoint {
        position: Position(position),
        rows_position: Position(0),
        identity: Some(LogIdentity { cluster_id: "cluster".into(), topic_id: "topic".into() }),
        last_record: Some(RecordFingerprint {
            offset: Offset(position - 1),
            fingerprint: u64::MAX,
        }),
        tally: RecordCounts { applied: position, duplicates: 0, dead_lettered: 0 },
    }
}

fn commit(from: u64, to: u64) -> Commit {
    Commit {
        epoch: Epoch(1),
        from: Position(from),
        checkpoint: checkpoint(to),
        totals: vec![(new_budget_id(), totals(to, to, 2)), (new_budget_id(), totals(to, to, 3))],
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_migration_is_recorded_once_with_concurrent_connections() {
    let (config, session) = new_keyspace("scylla_migrations").await;
    let all = (0..4).map(|_| ScyllaStore::connect(&config));
    for connected in futures_util::future::join_all(all).await {
        assert_eq!(connected.err(), None);
    }
    let series = [("schema", schemas::cql::MIGRATIONS), ("additions", schemas::cql::ADDITIONS)];
    for (id, migrations) in series {
        let query =
            "SELECT version, name, migrator FROM scylla_migrations.schema_migrations WHERE id = ?";
        let rows = session.query_unpaged(query, (id,)).await.unwrap().into_rows_result().unwrap();
        let rows: Vec<(i32, String, Option<uuid::Uuid>)> =
            rows.rows().unwrap().collect::<Result<_, _>>().unwrap();
        let expected: Vec<_> = migrations
            .iter()
            .map(|migration| (migration.version as i32, migration.name.to_owned(), None))
            .collect();
        assert_eq!(rows, expected, "{id}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_newer_than_the_program_is_rejected() {
    let (config, session) = new_keyspace("scylla_newer").await;
    drop(ScyllaStore::connect(&config).await.unwrap());
    let newer = "INSERT INTO scylla_newer.schema_migrations (id, version, name) \
                 VALUES ('schema', 9999, 'of tomorrow') IF NOT EXISTS";
    session.query_unpaged(newer, ()).await.unwrap();
    let refusal = ScyllaStore::connect(&config).await.err();
    assert!(
        matches!(&refusal, Some(StoreError::Corrupt(reason)) if reason.contains("9999")),
        "{refusal:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abandoned_migration_lock_expires() {
    let (config, session) = new_keyspace("scylla_lock").await;
    drop(ScyllaStore::connect(&config).await.unwrap());
    // As if the process had died between creating the tables and recording the migration.
    for statement in [
        "DELETE FROM scylla_lock.schema_migrations WHERE id = 'schema' AND version = 1 IF EXISTS",
        "UPDATE scylla_lock.schema_migrations USING TTL 3 SET migrator = uuid() \
         WHERE id = 'schema' IF migrator = NULL",
    ] {
        session.query_unpaged(statement, ()).await.unwrap();
    }
    let begun = Instant::now();
    let connected = ScyllaStore::connect(&config).await.map(drop);
    assert_eq!(connected, Ok(()));
    assert!(begun.elapsed() > Duration::from_secs(1), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_datacenter_is_rejected() {
    let mut config = config("scylla_datacenter");
    config.datacenter = Some("atlantis".into());
    let refusal = ScyllaStore::connect(&config).await.err();
    assert!(
        matches!(&refusal, Some(StoreError::Corrupt(reason)) if reason.contains("atlantis")),
        "{refusal:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_with_a_lost_response_times_out_and_is_applied_once() {
    let (mut config, _session) = new_keyspace("scylla_lost_answer").await;
    let proxy = LossyProxy::start(&config.nodes[0]).await;
    config.nodes = vec![proxy.address()];
    config.request_timeout = Duration::from_secs(3);
    let store = ScyllaStore::connect(&config).await.unwrap();
    let claimed = store.claim(PARTITION, None, Epoch(1), "me").await;
    assert_eq!(claimed, Ok(CasOutcome::Applied));

    let commit = commit(0, 7);
    proxy.set_drop_responses(true);
    let begun = Instant::now();
    let lost = store.commit(PARTITION, &commit).await;
    assert!(matches!(lost, Err(StoreError::Unavailable(_))), "{lost:?}");
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());

    proxy.set_drop_responses(false);
    let settled = loop {
        // The connections may be lost with the responses.
        match store.read_partition(PARTITION).await {
            Ok(stored) => break stored.unwrap(),
            Err(StoreError::Unavailable(_)) if begun.elapsed() < Duration::from_secs(60) => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(error) => panic!("{error}"),
        }
    };
    assert_eq!(settled.checkpoint, commit.checkpoint);
    assert_eq!(store.commit(PARTITION, &commit).await, Ok(CasOutcome::Refused));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_keeps_the_columns_that_it_does_not_set() {
    let (config, _session) = new_keyspace("scylla_unset").await;
    let store = ScyllaStore::connect(&config).await.unwrap();
    store.claim(PARTITION, None, Epoch(1), "me").await.unwrap();
    assert_eq!(store.commit(PARTITION, &commit(0, 7)).await, Ok(CasOutcome::Applied));
    let mut without = commit(7, 9);
    without.checkpoint.identity = None;
    without.checkpoint.last_record = None;
    assert_eq!(store.commit(PARTITION, &without).await, Ok(CasOutcome::Applied));

    let stored = store.read_partition(PARTITION).await.unwrap().unwrap();
    assert_eq!(stored.checkpoint.position, Position(9));
    assert_eq!(stored.checkpoint.identity, checkpoint(7).identity);
    assert_eq!(stored.checkpoint.last_record, checkpoint(7).last_record);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_timestamp_of_a_person_row_is_its_offset_plus_one() {
    let (config, session) = new_keyspace("scylla_stamps").await;
    let store = ScyllaStore::connect(&config).await.unwrap();
    // From the first offset, and in the wrong order.
    let rows = [(1, 0), (2, 5_000), (2, 4_999), (3, i64::MAX as u64 - 1)];
    for (number, offset) in rows {
        store.write_people(PARTITION, &[row(person(number, 5), offset)]).await.unwrap();
    }
    let query = "SELECT person, WRITETIME(state) FROM scylla_stamps.allocations \
                 WHERE generation = 1 AND partition = 3 AND bucket = 5";
    let response = session.query_unpaged(query, ()).await.unwrap().into_rows_result().unwrap();
    for (number, stamp) in [(1, 1), (2, 5_001), (3, i64::MAX)] {
        let key = person(number, 5);
        let found = response.rows::<(&[u8], i64)>().unwrap().map(Result::unwrap);
        let stamps: Vec<_> =
            found.filter(|(person, _)| *person == key.as_bytes()).map(|(_, stamp)| stamp).collect();
        assert_eq!(stamps, [stamp]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_of_several_pages_is_read_completely() {
    const PEOPLE: u64 = 12_345;
    let (config, _session) = new_keyspace("scylla_pages").await;
    let store = ScyllaStore::connect(&config).await.unwrap();
    let rows: Vec<_> = (0..PEOPLE).map(|number| row(person(number, 9), number)).collect();
    store.write_people(PARTITION, &rows).await.unwrap();
    let mut found = Vec::new();
    store.read_people(PARTITION, 9, &mut |row| found.push(row)).await.unwrap();
    found.sort_by_key(|row| row.offset);
    assert!(found == rows, "{} rows of {PEOPLE}", found.len());
}

/// Statements of `earlier_release/keyspace.cql`.
fn statements_of_an_earlier_release() -> Vec<String> {
    let text = include_str!("earlier_release/keyspace.cql");
    let code: Vec<&str> = text.lines().filter(|line| !line.starts_with("--")).collect();
    let statements = code.join("\n");
    statements.split(";\n").map(|it| it.trim().to_owned()).filter(|it| !it.is_empty()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keyspace_of_an_earlier_release_opens_with_all_its_data() {
    let (config, session) = new_keyspace("scylla_earlier_release").await;
    let create = "CREATE KEYSPACE scylla_earlier_release WITH replication = \
                  {'class': 'NetworkTopologyStrategy', 'replication_factor': 1}";
    session.query_unpaged(create, ()).await.unwrap();
    session.use_keyspace("scylla_earlier_release", false).await.unwrap();
    for statement in statements_of_an_earlier_release() {
        session.query_unpaged(statement, ()).await.unwrap();
        session.await_schema_agreement().await.unwrap();
    }

    let store = ScyllaStore::connect(&config).await.unwrap();
    let registry = store.registry().await.unwrap().unwrap();
    assert_eq!(registry.active.generation, Generation(2));
    assert_eq!(registry.previous.map(|previous| previous.generation), Some(Generation(1)));
    assert_eq!(registry.term, 2);
    let count = registry.active.log.partitions;
    let (mut people, mut rows, mut records) = (0, 0, 0);
    for partition in count.partitions() {
        let id = PartitionRef { generation: Generation(2), partition };
        let stored = store.read_partition(id).await.unwrap().unwrap();
        assert_eq!(stored.checkpoint.position, stored.checkpoint.rows_position);
        records += stored.checkpoint.position.0;
        people += stored.totals.iter().map(|(_, totals)| totals.people).sum::<u64>();
        for bucket in schemas::buckets() {
            store.read_people(id, bucket, &mut |_| rows += 1).await.unwrap();
        }
        // The next owner continues the chain of epochs.
        let next = Epoch(stored.epoch.0 + 1);
        let claimed = store.claim(id, Some(stored.epoch), next, "the next owner").await;
        assert_eq!(claimed, Ok(CasOutcome::Applied));
    }
    // Seven people submitted, and one of them withdrew: the row of a withdrawal stays.
    assert_eq!((records, people, rows), (8, 6, 7));
    let reports = store.reports(Generation(1), count).await.unwrap();
    assert!(reports.iter().all(Option::is_some), "{reports:?}");
    let jobs = store.job_rows().await.unwrap();
    assert_eq!((jobs.jobs.len(), jobs.unreadable.len()), (1, 0));
    assert_eq!(jobs.jobs[0].state.name(), "succeeded");
}
