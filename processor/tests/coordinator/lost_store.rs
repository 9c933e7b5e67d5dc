//! The first registry: after a completely lost store, beside what a lost registry leaves, restored from an older backup,
//! and of another fold.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use generations::registry::{begin, begin_on_new_log, switch_active, update_registry};
use processor::{StartError, first_registry};
use schemas::{
    FOLD_VERSION, Generation, GenerationRecord, GenerationRegistry, LogNumber, LogRef,
    PartitionCount, PartitionId,
};
use storage::control::{ActiveLog, ControlTopicError};
use storage::store::memory::MemoryStore;
use storage::store::sqlite::SqliteStore;
use storage::store::{Checkpoints, Epoch, Generations, PartitionRef, Store};
use tokio::sync::watch;

/// An announced active log that may not be loaded.
struct FakeActiveLog {
    loaded: AtomicBool,
    log: watch::Sender<Option<LogRef>>,
}

impl FakeActiveLog {
    fn new(loaded: bool, log: Option<LogRef>) -> Self {
        Self { loaded: AtomicBool::new(loaded), log: watch::Sender::new(log) }
    }
}

#[async_trait]
impl ActiveLog for FakeActiveLog {
    fn is_loaded(&self) -> bool {
        self.loaded.load(Ordering::Acquire)
    }

    fn subscribe(&self) -> watch::Receiver<Option<LogRef>> {
        self.log.subscribe()
    }

    async fn announce(&self, _log: &LogRef) -> Result<(), ControlTopicError> {
        Err(ControlTopicError::Unavailable("the active log never changes in this test".into()))
    }
}

fn count(partitions: u64) -> PartitionCount {
    PartitionCount::new(partitions).unwrap()
}

fn first_log() -> LogRef {
    LogRef::first("submissions", count(3))
}

fn later_log() -> LogRef {
    LogRef { number: LogNumber(4), topic: "submissions-4".to_owned(), partitions: count(5) }
}

#[tokio::test(start_paused = true)]
async fn without_a_registry_the_process_waits_until_the_active_log_is_known() {
    let (store, active_log) = (MemoryStore::new(), FakeActiveLog::new(false, None));
    let first_log = first_log();
    let starting = first_registry(&store, &active_log, &first_log);
    tokio::pin!(starting);
    let early = tokio::time::timeout(Duration::from_secs(60), &mut starting).await;
    assert!(early.is_err(), "started with a log that may not be the active one");
    assert_eq!(store.registry().await, Ok(None));

    active_log.log.send_replace(Some(later_log()));
    active_log.loaded.store(true, Ordering::Release);
    let registry = starting.await.unwrap();
    assert_eq!(registry, GenerationRegistry::first(later_log()));
    assert_eq!(registry.active.generation, Generation(4));
    assert_eq!(store.registry().await, Ok(Some(registry)));

    let moved =
        update_registry(&store, |registry| begin_on_new_log(registry, "submissions", count(7), 5))
            .await;
    let building = moved.unwrap().building.unwrap().record;
    assert_eq!((building.log.topic.as_str(), building.log.number), ("submissions-5", LogNumber(5)));
}

#[tokio::test]
async fn a_new_deployment_starts_with_the_configured_log() {
    let (store, active_log) = (MemoryStore::new(), FakeActiveLog::new(true, None));
    let registry = first_registry(&store, &active_log, &first_log()).await.unwrap();
    assert_eq!(registry, GenerationRegistry::first(first_log()));
}

#[tokio::test]
async fn an_existing_registry_takes_precedence_and_is_not_delayed_by_loading() {
    let (store, active_log) = (MemoryStore::new(), FakeActiveLog::new(false, Some(later_log())));
    store.change_registry(&GenerationRegistry::first(first_log())).await.unwrap();
    let registry = first_registry(&store, &active_log, &first_log()).await.unwrap();
    assert_eq!(registry, GenerationRegistry::first(first_log()));
}

#[tokio::test]
async fn a_lost_registry_is_reported_and_no_earlier_generation_resumes() {
    // The generation that a new registry would begin: of the configured log, of a later one; or the number of a later
    // rebuild. Some are retired.
    for (generation, is_retired, log) in [
        (1, false, None),
        (1, true, None),
        (7, false, None),
        (4, false, Some(later_log())),
        (5, true, Some(later_log())),
    ] {
        let (store, active_log) = (MemoryStore::new(), FakeActiveLog::new(true, log));
        let id = PartitionRef { generation: Generation(generation), partition: PartitionId(2) };
        store.claim(id, None, Epoch(1), "an owner").await.unwrap();
        if is_retired {
            store.retire_partition(id).await.unwrap();
        }
        let refused = first_registry(&store, &active_log, &first_log()).await;
        let Err(StartError::Store(reason)) = refused else { panic!("{refused:?}") };
        assert!(reason.starts_with("the generation registry is lost"), "{reason}");
        assert_eq!(store.registry().await, Ok(None));
    }
}

#[tokio::test]
async fn totals_of_a_store_older_than_the_active_log_do_not_prevent_a_first_registry() {
    let (store, active_log) = (MemoryStore::new(), FakeActiveLog::new(true, Some(later_log())));
    let id = PartitionRef { generation: Generation(3), partition: PartitionId(2) };
    store.claim(id, None, Epoch(1), "an owner").await.unwrap();
    let registry = first_registry(&store, &active_log, &first_log()).await.unwrap();
    assert_eq!(registry, GenerationRegistry::first(later_log()));
}

/// A store of each embeddable kind, and what keeps it.
fn stores() -> [(Arc<dyn Store>, Option<tempfile::TempDir>); 2] {
    let dir = tempfile::tempdir().unwrap();
    let sqlite = SqliteStore::open(&dir.path().join("store.db")).unwrap();
    [(Arc::new(MemoryStore::new()), None), (Arc::new(sqlite), Some(dir))]
}

fn partition_of(generation: u32) -> PartitionRef {
    PartitionRef { generation: Generation(generation), partition: PartitionId(2) }
}

#[tokio::test]
async fn a_registry_older_than_the_rest_of_the_store_is_refused_with_what_shows_it() {
    // The row is that of before the first rebuild; since then generation 2 was built, and the first one retired.
    for (claimed, retired, reason) in [
        (
            &[1, 2][..],
            &[][..],
            "it has yet to begin generation 2, and the store knows generation 2",
        ),
        (&[1, 2, 3], &[1, 2], "it has yet to begin generation 2, and the store knows generation 3"),
        (&[1], &[2], "it has yet to begin generation 2, and the store knows generation 2"),
        (&[1], &[1], "its active generation 1 was retired, and its data are deleted"),
    ] {
        for (store, _dir) in stores() {
            let older = GenerationRegistry::first(first_log());
            store.change_registry(&older).await.unwrap();
            for generation in claimed {
                store.claim(partition_of(*generation), None, Epoch(1), "an owner").await.unwrap();
            }
            for generation in retired {
                store.retire_partition(partition_of(*generation)).await.unwrap();
            }
            let active_log = FakeActiveLog::new(true, None);
            let refused = first_registry(store.as_ref(), &active_log, &first_log()).await;
            let Err(StartError::Store(refused)) = refused else { panic!("{refused:?}") };
            let expected = format!(
                "the generation registry (table `roster`, revision 1) is older than the rest of the store: {reason}. \
                 Restore that table"
            );
            assert!(refused.starts_with(&expected), "{refused}");
            assert!(refused.ends_with("derived from the log again"), "{refused}");
            assert_eq!(store.registry().await, Ok(Some(older)));
        }
    }
}

#[tokio::test]
async fn a_registry_newer_than_the_rest_of_the_store_starts_and_its_generation_is_derived_again() {
    for (store, _dir) in stores() {
        store.change_registry(&GenerationRegistry::first(first_log())).await.unwrap();
        store.claim(partition_of(1), None, Epoch(1), "an owner").await.unwrap();
        update_registry(store.as_ref(), |registry| begin(registry, false, 5)).await.unwrap();
        let switch = |registry: &GenerationRegistry| switch_active(registry, Generation(2));
        let newer = update_registry(store.as_ref(), switch).await.unwrap();
        let active_log = FakeActiveLog::new(true, None);
        let registry = first_registry(store.as_ref(), &active_log, &first_log()).await;
        assert_eq!(registry.unwrap(), newer);
        // Nobody has folded it: it begins with the log's first record, or halts if the log no longer has that.
        assert_eq!(store.read_partition(partition_of(2)).await, Ok(None));
    }
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_was_read_during_a_change_is_read_again() {
    let (store, active_log) = (MemoryStore::new(), FakeActiveLog::new(true, None));
    store.change_registry(&GenerationRegistry::first(first_log())).await.unwrap();
    // As if the row had been read before another process began generation 2, and the partitions after it.
    store.claim(partition_of(2), None, Epoch(1), "an owner").await.unwrap();
    let first_log = first_log();
    let starting = first_registry(&store, &active_log, &first_log);
    tokio::pin!(starting);
    let early = tokio::time::timeout(Duration::from_millis(100), &mut starting).await;
    assert!(early.is_err(), "{early:?}");
    let begun = update_registry(&store, |registry| begin(registry, false, 5)).await.unwrap();
    assert_eq!(starting.await.unwrap(), begun);
}

#[tokio::test]
async fn totals_of_a_newer_version_of_the_fold_are_not_resumed() {
    let (store, active_log) = (MemoryStore::new(), FakeActiveLog::new(true, None));
    let mut registry = GenerationRegistry::first(first_log());
    registry.active = GenerationRecord { fold_version: FOLD_VERSION + 1, ..registry.active };
    store.change_registry(&registry).await.unwrap();
    let refused = first_registry(&store, &active_log, &first_log()).await;
    assert!(matches!(refused, Err(StartError::FoldVersion(_))), "{refused:?}");
}
