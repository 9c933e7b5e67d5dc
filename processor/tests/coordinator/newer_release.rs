//! A generation registry that a newer release wrote: followed if possible, never changed, and never guessed.

use std::sync::Arc;
use std::time::Duration;

use generations::registry::{RegistryUpdateError, begin, update_registry};
use processor::ProcessorDeps;
use rusqlite::Connection;
use schemas::{Generation, GenerationRegistry, LogRef, PartitionCount};
use storage::cache::memory::MemoryCache;
use storage::control::ControlTopic;
use storage::control::sqlite::SqliteControlTopic;
use storage::exports::Exports;
use storage::log::LogReader;
use storage::log::sqlite::{SqliteDeadLetterJournal, SqliteLog, SqliteReader};
use storage::signals::SqliteSignalReader;
use storage::store::Generations;
use storage::store::sqlite::SqliteStore;
use tempfile::TempDir;

use crate::process::EAGER;
use crate::running_processor::RunningProcessor;
use crate::single_log::SingleLogOpener;

const TIMEOUT: Duration = Duration::from_secs(30);

fn first_log() -> LogRef {
    LogRef::first("submissions", PartitionCount::new(1).unwrap())
}

/// Replaces the registry's row as a newer release would, with one more member. Returns the row.
fn write_registry(dir: &TempDir, member: &str, value: serde_json::Value) -> String {
    let registry = GenerationRegistry { revision: 2, ..GenerationRegistry::first(first_log()) };
    let mut row: serde_json::Value = serde_json::from_str(&registry.to_json()).unwrap();
    row[member] = value;
    let row = row.to_string();
    let connection = Connection::open(dir.path().join("store.db")).unwrap();
    connection.execute("UPDATE roster SET revision = 2, roster = ?1", [&row]).unwrap();
    row
}

async fn start(dir: &TempDir) -> RunningProcessor {
    let store = Arc::new(SqliteStore::open(&dir.path().join("store.db")).unwrap());
    let path = dir.path().join("log.db");
    let log = Arc::new(SqliteLog::open(&path, first_log().partitions).unwrap());
    let reader: Arc<dyn LogReader> =
        Arc::new(SqliteReader::open(&path, first_log().partitions).unwrap());
    let deps = ProcessorDeps {
        source: Box::new(log.source().unwrap()),
        logs: Arc::new(SingleLogOpener {
            with_archive: Arc::clone(&reader),
            without_archive: reader,
        }),
        first_log: first_log(),
        dead_letters: Arc::clone(&log) as _,
        dead_letter_journal: Arc::new(SqliteDeadLetterJournal::open(&path).unwrap()),
        writer: log,
        store: Arc::clone(&store) as _,
        jobs: store,
        cache: Arc::new(MemoryCache::new()),
        control: ControlTopic::new(SqliteControlTopic::open(&dir.path().join("d.db")).unwrap()),
        archive_dir: None,
        exports: Exports::new(dir.path()),
        signals: Arc::new(SqliteSignalReader::new(&dir.path().join("signals.db"))),
    };
    RunningProcessor::start(deps, EAGER).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_member_of_the_registry_is_followed_and_survives() {
    let dir = tempfile::tempdir().unwrap();
    let running = start(&dir).await;
    let row = write_registry(&dir, "paused_by", "otto".into());
    let store = SqliteStore::open(&dir.path().join("store.db")).unwrap();
    let registry = store.registry().await.unwrap().unwrap();
    assert_eq!((registry.revision, registry.active.generation), (2, Generation::FIRST));
    let changed = update_registry(&store, |registry| begin(registry, false, 7)).await;
    let expected = RegistryUpdateError::NotUnderstood("/paused_by".to_owned());
    assert_eq!(changed, Err(expected));
    running.stop().await;
    let connection = Connection::open(dir.path().join("store.db")).unwrap();
    let kept = connection.query_row("SELECT roster FROM roster", [], |row| row.get(0));
    assert_eq!(kept, Ok(row));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_mode_of_the_registry_stops_the_processor() {
    for (member, value) in [
        ("requires", serde_json::json!(["paused"])),
        ("building", serde_json::json!({"mode": "on several logs"})),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let running = start(&dir).await;
        let health = running.health.clone();
        write_registry(&dir, member, value);
        let reason = tokio::time::timeout(TIMEOUT, running.halted()).await.expect(member);
        assert!(reason.contains("newer release"), "{reason}");
        assert!(!health.is_ready());
    }
}
