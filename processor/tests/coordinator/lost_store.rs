//! A completely lost store after a repartition: the first registry starts with the log that receives submissions.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use generations::registry::{begin_on_new_log, update_registry};
use processor::first_registry;
use schemas::{Generation, GenerationRegistry, LogNumber, LogRef, PartitionCount};
use storage::control::{ActiveLog, DefinitionError};
use storage::store::Generations;
use storage::store::memory::MemoryStore;
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
