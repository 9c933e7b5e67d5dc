//! The closer against a control topic, a log and a store that fail, on paused time.
#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use parking_lot::{Mutex, MutexGuard};
use runtime::metrics::Metrics;
use schemas::{
    BudgetTotals, Closing, Generation, LogNumber, LogRef, Offset, PartitionCount, Position,
    RecordAddress, StoredBudget, default_budgets,
};
use storage::control::{Change, Deletion, Erasure, define};
use storage::log::AppendError;
use storage::store::memory::MemoryStore;
use storage::store::{Checkpoint, Commit, Epoch, PartitionRef};

use super::*;

const PARTITION: PartitionRef =
    PartitionRef { generation: Generation::FIRST, partition: PartitionId(0) };
const CLOSES_AT: &str = "2027-01-01T00:00:00Z";
const NOW: fn() -> Timestamp = || "2027-01-01T00:00:01Z".parse().unwrap();

#[derive(Default)]
struct Definitions {
    catalog: Mutex<Arc<Catalog>>,
    fails: AtomicBool,
    changes: AtomicUsize,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock()
}

impl Definitions {
    fn put(&self, stored: StoredBudget) {
        let mut catalog = lock(&self.catalog);
        *catalog = Arc::new(catalog.with_stored(&budget().id, stored));
    }
}

#[async_trait]
impl BudgetDefinitions for Definitions {
    fn catalog(&self) -> Arc<Catalog> {
        Arc::clone(&lock(&self.catalog))
    }

    fn is_loaded(&self) -> bool {
        true
    }

    async fn confirmed(&self) -> Result<Arc<Catalog>, ControlTopicError> {
        Ok(self.catalog())
    }

    fn changes(&self) -> watch::Receiver<()> {
        watch::channel(()).1
    }

    async fn change(
        &self,
        id: &BudgetId,
        decide: &Change<'_>,
    ) -> Result<Arc<Budget>, ControlTopicError> {
        self.changes.fetch_add(1, Ordering::Relaxed);
        if self.fails.load(Ordering::Relaxed) {
            return Err(ControlTopicError::Unavailable("injected fault".into()));
        }
        let current = self.catalog().changeable(id.as_str())?.cloned();
        if let Some(next) = decide(current.as_deref())? {
            self.put(StoredBudget::Understood(next));
        }
        Ok(Arc::clone(self.catalog().get(id.as_str()).unwrap()))
    }

    async fn delete(&self, _: &BudgetId, _: &Deletion<'_>) -> Result<(), ControlTopicError> {
        unreachable!("the closer deletes nothing")
    }

    async fn erase_former_definitions(&self, _: &BudgetId) -> Result<Erasure, ControlTopicError> {
        unreachable!("the closer erases nothing")
    }
}

#[derive(Default)]
struct Log {
    appends: AtomicUsize,
    rejects: AtomicBool,
}

#[async_trait]
impl LogWriter for Log {
    async fn append(&self, records: Vec<NewRecord>) -> Vec<Result<RecordAddress, AppendError>> {
        let number = self.appends.fetch_add(1, Ordering::Relaxed);
        let address = RecordAddress {
            log: LogNumber::FIRST,
            partition: PARTITION.partition,
            offset: Offset(number as u64),
        };
        let outcome = || match self.rejects.load(Ordering::Relaxed) {
            true => Err(AppendError::Unavailable("injected fault".into())),
            false => Ok(address),
        };
        records.iter().map(|_| outcome()).collect()
    }

    fn available(&self) -> Result<(), AppendError> {
        Ok(())
    }
}

fn budget() -> Budget {
    let closes_at = Some(CLOSES_AT.parse().unwrap());
    Budget { closes_at, revision: 1, ..default_budgets().unwrap().remove(0) }
}

fn closed() -> StoredBudget {
    StoredBudget::Understood(close(Some(&budget()), &budget()).unwrap().unwrap())
}

struct World {
    closer: BudgetCloser,
    definitions: Arc<Definitions>,
    log: Arc<Log>,
    store: Arc<MemoryStore>,
    assigned: watch::Sender<BTreeSet<PartitionId>>,
    _registry: watch::Sender<GenerationRegistry>,
    metrics: Metrics,
    position: u64,
}

impl World {
    /// A log of one partition, which is claimed and assigned to the closer's process.
    async fn new(stored: StoredBudget) -> Self {
        let definitions = Arc::new(Definitions::default());
        definitions.put(stored);
        let (log, store) = (Arc::new(Log::default()), Arc::new(MemoryStore::new()));
        store.claim(PARTITION, None, Epoch(1), "owner").await.unwrap();
        let first = LogRef::first("submissions", PartitionCount::new(1).unwrap());
        let registry = watch::Sender::new(GenerationRegistry::first(first));
        let assigned = watch::Sender::new(BTreeSet::from([PARTITION.partition]));
        let metrics = Metrics::new("test");
        let closer = BudgetCloser::new(ClosingDeps {
            definitions: Arc::clone(&definitions) as _,
            store: Arc::clone(&store) as _,
            writer: Arc::clone(&log) as _,
            registry: registry.subscribe(),
            assigned: assigned.subscribe(),
            metrics: ClosingMetrics::new(&metrics).unwrap(),
            clock: NOW,
        });
        Self {
            closer,
            definitions,
            log,
            store,
            assigned,
            _registry: registry,
            metrics,
            position: 0,
        }
    }

    async fn run(&mut self, seconds: u64) {
        let end = Instant::now() + Duration::from_secs(seconds);
        while Instant::now() < end {
            self.closer.tick().await;
            tokio::time::advance(TICK_INTERVAL).await;
        }
    }

    /// Commits totals with the close marker of this revision, or without any.
    async fn commit_totals(&mut self, revision: Option<u64>) {
        let closing = revision.map(|of| Closing::new(of, vec![Offset(0)]).unwrap());
        let totals = BudgetTotals {
            closing: closing.unwrap_or_default(),
            position: Position(self.position + 1),
            ..BudgetTotals::default()
        };
        let commit = Commit {
            epoch: Epoch(1),
            from: Position(self.position),
            checkpoint: Checkpoint { position: totals.position, ..Checkpoint::START },
            totals: vec![(budget().id, totals)],
        };
        self.store.commit(PARTITION, &commit).await.unwrap();
        self.position += 1;
    }

    fn appends(&self) -> usize {
        self.log.appends.load(Ordering::Relaxed)
    }

    fn metric(&self, name: &str) -> u64 {
        let rendered = String::from_utf8(self.metrics.render()).unwrap();
        let name = format!("allocator_processor_{name} ");
        rendered.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok()).unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn markers_that_are_not_folded_are_appended_again_less_and_less_often() {
    let mut world = World::new(closed()).await;
    // At 0, 5, 15, 35, 65 and 95 seconds.
    world.run(100).await;
    assert_eq!(world.appends(), 6);
    assert_eq!(world.metric("budgets_not_final"), 1);
    // By the clock, which stands still here.
    assert_eq!(world.metric("budget_oldest_seconds{state=\"closing\"}"), 1);
}

#[tokio::test(start_paused = true)]
async fn markers_that_the_log_rejects_are_appended_soon_after_it_is_back() {
    let mut world = World::new(closed()).await;
    world.log.rejects.store(true, Ordering::Relaxed);
    // At 0, 1, 3 and 7 seconds, and then every five.
    world.run(100).await;
    assert_eq!(world.appends(), 22);
    world.log.rejects.store(false, Ordering::Relaxed);
    world.run(5).await;
    assert_eq!(world.appends(), 23);
    world.run(1).await;
    assert_eq!(world.appends(), 23, "what is appended gets time to be folded");
}

#[tokio::test(start_paused = true)]
async fn a_control_topic_that_cannot_be_changed_is_tried_less_and_less_often() {
    let mut world = World::new(StoredBudget::Understood(budget())).await;
    world.definitions.fails.store(true, Ordering::Relaxed);
    world.run(60).await;
    let changes = world.definitions.changes.load(Ordering::Relaxed);
    assert!((4..=6).contains(&changes), "{changes}");
    world.definitions.fails.store(false, Ordering::Relaxed);
    world.run(31).await;
    assert!(world.definitions.catalog().get(budget().id.as_str()).unwrap().is_fenced());
}

#[tokio::test(start_paused = true)]
async fn a_definition_of_a_newer_release_is_not_changed_and_counted() {
    let members = vec!["/weights".to_owned()];
    let mut world = World::new(StoredBudget::PartlyUnderstood { budget: budget(), members }).await;
    world.run(60).await;
    assert_eq!(world.definitions.changes.load(Ordering::Relaxed), 0);
    assert_eq!((world.metric("budgets_not_changeable"), world.metric("budgets_not_final")), (1, 1));
    world.definitions.put(StoredBudget::Understood(Budget { revision: 2, ..budget() }));
    world.run(1).await;
    assert_eq!(world.metric("budgets_not_changeable"), 0);
    assert_eq!(world.definitions.changes.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn a_budget_that_stays_reopening_is_reported_with_its_age() {
    let world = &mut World::new(closed()).await;
    world.commit_totals(Some(2)).await;
    world.run(10).await;
    let later = Budget { closes_at: None, ..budget() };
    let catalog = world.definitions.catalog();
    let current = catalog.get(budget().id.as_str()).map(AsRef::as_ref);
    let reopening = define(current, &later).unwrap().unwrap();
    world.definitions.put(StoredBudget::Understood(reopening));
    let age = |world: &World, state: &str| {
        world.metric(&format!("budget_oldest_seconds{{state=\"{state}\"}}"))
    };
    // Nobody folds the reopen marker.
    world.run(400).await;
    assert!((399..=400).contains(&age(world, "reopening")), "{}", age(world, "reopening"));
    assert_eq!((world.metric("budgets_not_final"), age(world, "closing")), (0, 0));
    // Another process reports once it decides, and has known of the reopening before.
    world.assigned.send_replace(BTreeSet::new());
    world.run(100).await;
    assert_eq!(age(world, "reopening"), 0);
    world.assigned.send_replace(BTreeSet::from([PARTITION.partition]));
    world.run(1).await;
    assert!(age(world, "reopening") >= 500);
    world.commit_totals(Some(3)).await;
    world.run(31).await;
    assert_eq!(age(world, "reopening"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_marker_that_the_totals_have_lost_is_appended_again() {
    let mut world = World::new(closed()).await;
    world.commit_totals(Some(2)).await;
    world.run(10).await;
    assert_eq!((world.appends(), world.metric("budgets_not_final")), (0, 0));
    // A processor of an earlier release has folded a record, and the partition comes back.
    world.commit_totals(None).await;
    world.run(10).await;
    assert_eq!(world.appends(), 0, "the totals are not read all the time");
    world.assigned.send_modify(|_| {});
    world.run(1).await;
    assert_eq!((world.appends(), world.metric("budgets_not_final")), (1, 1));

    // Another process notices it, too, after a while.
    world.commit_totals(Some(2)).await;
    world.run(10).await;
    assert_eq!(world.metric("budgets_not_final"), 0);
    world.commit_totals(None).await;
    world.run(54).await;
    assert_eq!((world.appends(), world.metric("budgets_not_final")), (2, 1));
}
