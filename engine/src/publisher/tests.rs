//! The publisher with a cache that rejects some budgets, compares slowly, or loses its data.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use runtime::metrics::Metrics;
use schemas::{
    CombinedTotals, Generation, PartitionId, PartitionTotals, PersonKey, Position, PublishStep,
};
use storage::cache::CacheUpdate;
use storage::control::sqlite::SqliteControlTopic;
use tokio::sync::{broadcast, watch};

use super::*;

const PARTITION: PartitionRef =
    PartitionRef { generation: Generation(1), partition: PartitionId(0) };
const NEVER: Duration = Duration::from_secs(3_600);

/// The last published position of each budget.
type Published = BTreeMap<BudgetId, Position>;

/// A cache that rejects damaged budgets, and counts what it is sent.
#[derive(Default)]
struct PickyCache {
    damaged: Mutex<BTreeSet<BudgetId>>,
    /// The totals that were published last.
    latest: Mutex<BudgetTotals>,
    published: watch::Sender<Published>,
    publications: AtomicUsize,
    compare_delay: Mutex<Duration>,
}

impl PickyCache {
    async fn wait_for(&self, condition: impl FnMut(&Published) -> bool) {
        self.published.subscribe().wait_for(condition).await.unwrap();
    }

    fn check(&self, budget: &BudgetId) -> Result<(), CacheError> {
        if self.damaged.lock().contains(budget) {
            return Err(CacheError(format!("{budget} is damaged")));
        }
        Ok(())
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
        self.check(budget)?;
        self.publications.fetch_add(1, Ordering::Relaxed);
        *self.latest.lock() = partitions[0].totals.clone();
        self.published.send_modify(|published| {
            published.insert(budget.clone(), partitions[0].totals.position);
        });
        Ok(())
    }

    async fn outdated_partitions(
        &self,
        budget: &BudgetId,
        _: Term,
        _: PartitionCount,
        positions: &[(PartitionId, Position)],
    ) -> Result<Vec<PartitionId>, CacheError> {
        let delay = *self.compare_delay.lock();
        sleep(delay).await;
        self.check(budget)?;
        let stored = self.published.borrow().get(budget).copied();
        let outdated = positions.iter().filter(|(_, position)| stored < Some(*position));
        Ok(outdated.map(|(partition, _)| *partition).collect())
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
        self.run_confirming(NEVER, stop)
    }

    fn run_confirming(
        &self,
        interval: Duration,
        stop: &CancellationToken,
    ) -> tokio::task::JoinHandle<()> {
        let (publisher, stop) = (Arc::clone(&self.publisher), stop.clone());
        tokio::spawn(async move { publisher.run(interval, stop).await })
    }

    /// Makes this process the owner of the partition, without any record.
    fn take_over(&self) {
        self.publisher.publish(PARTITION, Vec::new());
    }

    fn publications(&self) -> usize {
        self.cache.publications.load(Ordering::Relaxed)
    }

    fn commit(&self, budgets: &[&str], position: u64) {
        let totals = BudgetTotals { position: Position(position), ..Default::default() };
        let all = budgets.iter().map(|budget| (id(budget), totals.clone()));
        self.publisher.publish(PARTITION, all.collect());
    }

    fn damage(&self, budgets: &[&str]) {
        *self.cache.damaged.lock() = budgets.iter().map(|budget| id(budget)).collect();
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
async fn a_budget_that_cannot_be_confirmed_does_not_block_the_others() {
    let fixture = Fixture::new();
    fixture.damage(&["a"]);
    fixture.commit(&["a", "b"], 7);
    fixture.run_confirming(Duration::from_secs(2), &CancellationToken::new());
    fixture.wait_until_published("b", 7).await;
    for _ in 0..3 {
        fixture.cache.published.send_modify(BTreeMap::clear);
        let lost_at = Instant::now();
        fixture.wait_until_published("b", 7).await;
        assert!(lost_at.elapsed() <= Duration::from_secs(2), "{:?}", lost_at.elapsed());
    }
    fixture.damage(&[]);
    fixture.wait_until_published("a", 7).await;
}

#[tokio::test(start_paused = true)]
async fn rejected_totals_are_published_again_in_their_newest_version() {
    let fixture = Fixture::new();
    fixture.take_over();
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
async fn changes_do_not_wait_for_the_confirmation_of_other_budgets() {
    let fixture = Fixture::new();
    let budgets: Vec<String> = (0..1_000).map(|number| format!("budget-{number}")).collect();
    let budgets: Vec<&str> = budgets.iter().map(String::as_str).collect();
    fixture.commit(&budgets, 1);
    // Confirming everything takes 100 seconds.
    *fixture.cache.compare_delay.lock() = Duration::from_millis(100);
    fixture.run_confirming(Duration::from_secs(2), &CancellationToken::new());
    for position in 2..200 {
        fixture.commit(&["budget-999"], position);
        let committed_at = Instant::now();
        fixture.wait_until_published("budget-999", position).await;
        assert!(committed_at.elapsed() <= FLUSH_INTERVAL, "{:?}", committed_at.elapsed());
        sleep(Duration::from_millis(7)).await;
    }
    fixture.wait_until_published("budget-0", 1).await;
}

#[tokio::test(start_paused = true)]
async fn only_what_the_cache_has_lost_is_sent_again() {
    let fixture = Fixture::new();
    let interval = Duration::from_secs(2);
    fixture.commit(&["a", "b"], 7);
    fixture.run_confirming(interval, &CancellationToken::new());
    fixture.cache.wait_for(|published| published.len() == 2).await;
    sleep(10 * interval).await;
    assert_eq!(fixture.publications(), 2);

    fixture.cache.published.send_modify(|published| {
        published.remove(&id("a"));
    });
    sleep(2 * interval).await;
    assert_eq!(fixture.publications(), 3);
    let both = Published::from([(id("a"), Position(7)), (id("b"), Position(7))]);
    assert_eq!(*fixture.cache.published.borrow(), both);
}

#[tokio::test(start_paused = true)]
async fn pending_totals_of_a_released_partition_are_still_published() {
    let fixture = Fixture::new();
    fixture.commit(&["a"], 7);
    fixture.commit(&["b"], 8);
    fixture.publisher.forget(PARTITION);
    let stop = CancellationToken::new();
    let running = fixture.run(&stop);
    fixture.wait_until_published("a", 7).await;
    fixture.wait_until_published("b", 8).await;
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_released_partition_is_not_confirmed() {
    let fixture = Fixture::new();
    let interval = Duration::from_secs(2);
    fixture.commit(&["a"], 7);
    fixture.run_confirming(interval, &CancellationToken::new());
    fixture.wait_until_published("a", 7).await;
    fixture.publisher.forget(PARTITION);
    fixture.cache.published.send_modify(BTreeMap::clear);
    sleep(2 * interval).await;
    assert_eq!(*fixture.cache.published.borrow(), Published::new());
}

#[tokio::test(start_paused = true)]
async fn pending_totals_are_published_when_the_publisher_stops() {
    let fixture = Fixture::new();
    let stop = CancellationToken::new();
    stop.cancel();
    fixture.commit(&["a"], 3);
    fixture.commit(&["b"], 4);
    fixture.run(&stop).await.unwrap();
    let both = Published::from([(id("a"), Position(3)), (id("b"), Position(4))]);
    assert_eq!(*fixture.cache.published.borrow(), both);
}

#[tokio::test(start_paused = true)]
async fn what_is_pending_is_published_neither_by_a_flush_nor_by_a_confirmation() {
    let (fixture, stop) = (Fixture::new(), CancellationToken::new());
    let running = fixture.run(&stop);
    let mut totals = BudgetTotals::default();
    totals.hold_back(&PersonKey::from_bytes([1; 16]), PublishStep::nearest(3), true);
    (totals.people, totals.position) = (1, Position(1));
    // A new partition is confirmed, its later totals are flushed.
    for position in [1, 2] {
        totals.position = Position(position);
        fixture.publisher.publish(PARTITION, vec![(id("town"), totals.clone())]);
        fixture.wait_until_published("town", position).await;
        let latest = fixture.cache.latest.lock().clone();
        assert_eq!((latest.position, latest.people, latest.pending), (totals.position, 0, None));
    }
    stop.cancel();
    running.await.unwrap();
}
