//! The first registry: after a completely lost store, beside what a lost registry leaves, and of another fold.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use generations::registry::{begin_on_new_log, update_registry};
use processor::{StartError, first_registry};
use schemas::{
    FOLD_VERSION, Generation, GenerationRecord, GenerationRegistry, LogNumber, LogRef,
    PartitionCount, PartitionId,
};
use storage::control::{ActiveLog, DefinitionError};
use storage::store::memory::MemoryStore;
use storage::store::{Checkpoints, Epoch, Generations, PartitionRef};
use tokio::sync::watch;

/// A published active log that may not be loaded.
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

    async fn publish(&self, _log: &LogRef) -> Result<(), DefinitionError> {
        Err(DefinitionError::Unavailable("the active log never changes in this test".into()))
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

#[tokio::test]
async fn totals_of_a_newer_version_of_the_fold_are_not_resumed() {
    let (store, active_log) = (MemoryStore::new(), FakeActiveLog::new(true, None));
    let mut registry = GenerationRegistry::first(first_log());
    registry.active = GenerationRecord { fold_version: FOLD_VERSION + 1, ..registry.active };
    store.change_registry(&registry).await.unwrap();
    let refused = first_registry(&store, &active_log, &first_log()).await;
    assert!(matches!(refused, Err(StartError::FoldVersion(_))), "{refused:?}");
}
