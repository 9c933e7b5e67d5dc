//! The publisher with a cache that rejects some budgets.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use runtime::metrics::Metrics;
use schemas::{CombinedTotals, Generation, PartitionId, PartitionTotals, Position};
use storage::cache::CacheUpdate;
use storage::control::sqlite::SqliteControlTopic;
use tokio::sync::{broadcast, watch};

use super::*;

const PARTITION: PartitionRef =
    PartitionRef { generation: Generation(1), partition: PartitionId(0) };
const REPUBLISH: Duration = Duration::from_secs(3_600);

/// The last published position of each budget.
type Published = BTreeMap<BudgetId, Position>;

/// A cache that rejects damaged budgets.
#[derive(Default)]
struct PickyCache {
    damaged: Mutex<BTreeSet<BudgetId>>,
    published: watch::Sender<Published>,
}

impl PickyCache {
    async fn wait_for(&self, condition: impl FnMut(&Published) -> bool) {
        self.published.subscribe().wait_for(condition).await.unwrap();
    }
}

#[async_trait]
impl Cache for PickyCache {
    async fn publish(
        &self,
        budget: &BudgetId,
        _: PartitionCount,
        partitions: &[PartitionTotals],
    ) -> Result<(), CacheError> {
        if self.damaged.lock().unwrap().contains(budget) {
            return Err(CacheError(format!("{budget} is damaged")));
        }
        self.published.send_modify(|published| {
            published.insert(budget.clone(), partitions[0].totals.position);
        });
        Ok(())
    }

    async fn read(&self, _: &[BudgetId]) -> Result<Vec<Option<CombinedTotals>>, CacheError> {
        Err(CacheError("not read in these tests".into()))
    }

    fn subscribe(&self) -> broadcast::Receiver<CacheUpdate> {
        broadcast::Sender::new(1).subscribe()
    }
}

struct Fixture {
    cache: Arc<PickyCache>,
    publisher: Arc<Publisher>,
    _dir: tempfile::TempDir,
}

fn id(budget: &str) -> BudgetId {
    BudgetId::parse(budget).unwrap()
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let definitions = SqliteControlTopic::open(&dir.path().join("definitions.db")).unwrap();
        let cache = Arc::new(PickyCache::default());
        let publisher = Arc::new(Publisher::new(
            Arc::clone(&cache) as _,
            Arc::new(definitions),
            EngineMetrics::new(&Metrics::new("test")).unwrap(),
        ));
        publisher.set_active_term(Term::FIRST, PartitionCount::new(1).unwrap());
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

    async fn wait_until_published(&self, budget: &str, position: u64) {
        let reached =
            |published: &Published| published.get(&id(budget)) == Some(&Position(position));
        self.cache.wait_for(reached).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_budget_that_the_cache_rejects_does_not_block_the_others() {
    let fixture = Fixture::new();
    fixture.damage(&["a"]);
    fixture.run(&CancellationToken::new());
    for position in 1..100 {
        fixture.commit(&["a", "b"], position);
        let committed_at = Instant::now();
        fixture.wait_until_published("b", position).await;
        assert!(committed_at.elapsed() < RETRY_DELAY, "{:?}", committed_at.elapsed());
    }
    assert!(!fixture.cache.published.borrow().contains_key(&id("a")));
    fixture.damage(&[]);
    fixture.wait_until_published("a", 99).await;
}

#[tokio::test(start_paused = true)]
async fn rejected_totals_are_published_again_in_their_newest_version() {
    let fixture = Fixture::new();
    fixture.damage(&["a"]);
    fixture.commit(&["a"], 1);
    assert!(fixture.publisher.flush().await.error.is_some());
    fixture.commit(&["a"], 2);
    assert!(fixture.publisher.flush().await.error.is_some());
    fixture.damage(&[]);
    assert!(fixture.publisher.flush().await.published_any);
    assert_eq!(*fixture.cache.published.borrow(), Published::from([(id("a"), Position(2))]));
}

#[tokio::test(start_paused = true)]
async fn pending_totals_of_a_released_partition_are_still_published() {
    let fixture = Fixture::new();
    fixture.commit(&["a"], 7);
    fixture.publisher.forget(PARTITION);
    let stop = CancellationToken::new();
    let running = fixture.run(&stop);
    fixture.wait_until_published("a", 7).await;
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_released_partition_is_not_republished() {
    let fixture = Fixture::new();
    fixture.commit(&["a"], 7);
    assert!(fixture.publisher.flush().await.published_any);
    fixture.publisher.republish_all();
    assert!(fixture.publisher.flush().await.published_any);
    fixture.publisher.forget(PARTITION);
    fixture.publisher.republish_all();
    assert!(!fixture.publisher.flush().await.published_any);
}

#[tokio::test(start_paused = true)]
async fn pending_totals_are_published_when_the_publisher_stops() {
    let fixture = Fixture::new();
    let stop = CancellationToken::new();
    stop.cancel();
    fixture.commit(&["a"], 3);
    fixture.run(&stop).await.unwrap();
    assert_eq!(*fixture.cache.published.borrow(), Published::from([(id("a"), Position(3))]));
}
