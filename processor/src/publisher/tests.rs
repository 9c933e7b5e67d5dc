//! The publisher with a cache that takes some budgets and not others.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use runtime::metrics::Metrics;
use schemas::{CombinedTotals, Generation, PartitionId, PartitionTotals, Position};
use storage::cache::CacheUpdate;
use storage::definitions::sqlite::SqliteDefinitions;
use tokio::sync::{broadcast, watch};

use super::*;

const PARTITION: PartitionRef =
    PartitionRef { generation: Generation(1), partition: PartitionId(0) };
const REPUBLISH: Duration = Duration::from_secs(3_600);

/// Where it has been told that each budget is.
type Told = BTreeMap<BudgetId, Position>;

/// A cache that does not take the budgets that are damaged.
#[derive(Default)]
struct Picky {
    damaged: Mutex<BTreeSet<BudgetId>>,
    told: watch::Sender<Told>,
}

impl Picky {
    async fn hears(&self, told: impl FnMut(&Told) -> bool) {
        self.told.subscribe().wait_for(told).await.unwrap();
    }
}

#[async_trait]
impl Cache for Picky {
    async fn publish(
        &self,
        budget: &BudgetId,
        _: PartitionCount,
        partitions: &[PartitionTotals],
    ) -> Result<(), CacheError> {
        if self.damaged.lock().unwrap().contains(budget) {
            return Err(CacheError(format!("{budget} is damaged")));
        }
        self.told.send_modify(|told| {
            told.insert(budget.clone(), partitions[0].totals.position);
        });
        Ok(())
    }

    async fn read(&self, _: &[BudgetId]) -> Result<Vec<Option<CombinedTotals>>, CacheError> {
        Err(CacheError("nobody reads here".into()))
    }

    fn subscribe(&self) -> broadcast::Receiver<CacheUpdate> {
        broadcast::Sender::new(1).subscribe()
    }
}

struct Scene {
    cache: Arc<Picky>,
    publisher: Arc<Publisher>,
    _dir: tempfile::TempDir,
}

fn id(budget: &str) -> BudgetId {
    BudgetId::parse(budget).unwrap()
}

impl Scene {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let definitions = SqliteDefinitions::open(&dir.path().join("definitions.db")).unwrap();
        let cache = Arc::new(Picky::default());
        let publisher = Arc::new(Publisher::new(
            Arc::clone(&cache) as _,
            Arc::new(definitions),
            ProcessorMetrics::new(&Metrics::new("test")).unwrap(),
        ));
        publisher.answer_in(Term::FIRST, PartitionCount::new(1).unwrap());
        Self { cache, publisher, _dir: dir }
    }

    fn run(&self, stop: &CancellationToken) -> tokio::task::JoinHandle<()> {
        let (publisher, stop) = (Arc::clone(&self.publisher), stop.clone());
        tokio::spawn(async move { publisher.run(REPUBLISH, stop).await })
    }

    fn commit(&self, budgets: &[&str], position: u64) {
        let totals = BudgetTotals { position: Position(position), ..Default::default() };
        let all = budgets.iter().map(|budget| (id(budget), totals.clone()));
        self.publisher.publish(PARTITION, all.collect());
    }

    fn damage(&self, budgets: &[&str]) {
        *self.cache.damaged.lock().unwrap() = budgets.iter().map(|budget| id(budget)).collect();
    }

    async fn hears(&self, budget: &str, position: u64) {
        let heard = |told: &Told| told.get(&id(budget)) == Some(&Position(position));
        self.cache.hears(heard).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_budget_that_the_cache_does_not_take_keeps_no_other_from_being_told() {
    let scene = Scene::new();
    scene.damage(&["a"]);
    scene.run(&CancellationToken::new());
    for position in 1..100 {
        scene.commit(&["a", "b"], position);
        let told_at = Instant::now();
        scene.hears("b", position).await;
        assert!(told_at.elapsed() < RETRY_PAUSE, "{:?}", told_at.elapsed());
    }
    assert!(!scene.cache.told.borrow().contains_key(&id("a")));
    scene.damage(&[]);
    scene.hears("a", 99).await;
}

#[tokio::test(start_paused = true)]
async fn what_was_not_taken_is_told_again_as_it_is_by_then() {
    let scene = Scene::new();
    scene.damage(&["a"]);
    scene.commit(&["a"], 1);
    assert!(scene.publisher.tell().await.fault.is_some());
    scene.commit(&["a"], 2);
    assert!(scene.publisher.tell().await.fault.is_some());
    scene.damage(&[]);
    assert!(scene.publisher.tell().await.told_any);
    assert_eq!(*scene.cache.told.borrow(), Told::from([(id("a"), Position(2))]));
}

#[tokio::test(start_paused = true)]
async fn what_is_committed_is_told_though_its_partition_has_been_given_up() {
    let scene = Scene::new();
    scene.commit(&["a"], 7);
    scene.publisher.forget(PARTITION);
    let stop = CancellationToken::new();
    let running = scene.run(&stop);
    scene.hears("a", 7).await;
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_has_been_given_up_is_not_told_again() {
    let scene = Scene::new();
    scene.commit(&["a"], 7);
    assert!(scene.publisher.tell().await.told_any);
    scene.publisher.tell_everything_again();
    assert!(scene.publisher.tell().await.told_any);
    scene.publisher.forget(PARTITION);
    scene.publisher.tell_everything_again();
    assert!(!scene.publisher.tell().await.told_any);
}

#[tokio::test(start_paused = true)]
async fn the_last_totals_are_told_when_the_publisher_is_stopped() {
    let scene = Scene::new();
    let stop = CancellationToken::new();
    stop.cancel();
    scene.commit(&["a"], 3);
    scene.run(&stop).await.unwrap();
    assert_eq!(*scene.cache.told.borrow(), Told::from([(id("a"), Position(3))]));
}
