//! A store that was lost whole after submissions had gone on to a later log: what is counted begins with that one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use processor::first_roster;
use processor::generations::{begin_moved, change};
use schemas::{Budget, BudgetId, Generation, LogNumber, LogRef, PartitionCount, Roster};
use storage::definitions::{Catalog, Change, DefinitionError, Definitions};
use storage::store::Store;
use storage::store::memory::MemoryStore;
use tokio::sync::watch;

/// Definitions that may be away, and say where submissions go.
struct Told {
    loaded: AtomicBool,
    log: watch::Sender<Option<LogRef>>,
    changes: watch::Sender<()>,
}

impl Told {
    fn new(loaded: bool, log: Option<LogRef>) -> Self {
        let (loaded, log) = (AtomicBool::new(loaded), watch::Sender::new(log));
        Self { loaded, log, changes: watch::Sender::new(()) }
    }
}

#[async_trait]
impl Definitions for Told {
    fn catalog(&self) -> Arc<Catalog> {
        Arc::default()
    }

    fn is_loaded(&self) -> bool {
        self.loaded.load(Ordering::Acquire)
    }

    fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    fn log(&self) -> watch::Receiver<Option<LogRef>> {
        self.log.subscribe()
    }

    async fn change(
        &self,
        _budget: &BudgetId,
        _decide: &Change<'_>,
    ) -> Result<Arc<Budget>, DefinitionError> {
        Err(DefinitionError::Unavailable("they never change here".into()))
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
async fn without_a_roster_nothing_begins_before_the_definitions_say_where_submissions_go() {
    let (store, told) = (MemoryStore::new(), Told::new(false, None));
    let first_log = first_log();
    let beginning = first_roster(&store, &told, &first_log);
    tokio::pin!(beginning);
    let early = tokio::time::timeout(Duration::from_secs(60), &mut beginning).await;
    assert!(early.is_err(), "began with a log of which nobody knows whether it is the last");
    assert_eq!(store.roster().await, Ok(None));

    told.log.send_replace(Some(later_log()));
    told.loaded.store(true, Ordering::Release);
    let roster = beginning.await.unwrap();
    assert_eq!(roster, Roster::first(later_log()));
    assert_eq!(roster.current.generation, Generation(4));
    assert_eq!(store.roster().await, Ok(Some(roster)));

    let moved = change(&store, |roster| begin_moved(roster, "submissions", count(7), 5)).await;
    let building = moved.unwrap().building.unwrap().record;
    assert_eq!((building.log.topic.as_str(), building.log.number), ("submissions-5", LogNumber(5)));
}

#[tokio::test]
async fn a_new_deployment_begins_with_the_configured_log() {
    let (store, told) = (MemoryStore::new(), Told::new(true, None));
    let roster = first_roster(&store, &told, &first_log()).await.unwrap();
    assert_eq!(roster, Roster::first(first_log()));
}

#[tokio::test]
async fn a_roster_that_is_there_decides_whatever_the_definitions_say_and_is_not_kept_by_them() {
    let (store, told) = (MemoryStore::new(), Told::new(false, Some(later_log())));
    store.change_roster(&Roster::first(first_log())).await.unwrap();
    let roster = first_roster(&store, &told, &first_log()).await.unwrap();
    assert_eq!(roster, Roster::first(first_log()));
}
