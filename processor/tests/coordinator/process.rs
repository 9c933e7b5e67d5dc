//! A process around a coordinator: what it says to readers, in its metrics and in its readiness. A test's own thread is
//! the source's.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use processor::ProcessorMetrics;
use processor::coordinator::{Coordinator, CoordinatorParts};
use processor::partition::{Limits, StormLimits};
use processor::publisher::Publisher;
use runtime::health::{Health, HealthConfig};
use runtime::http::{self, HttpConfig};
use runtime::metrics::Metrics;
use schemas::{BudgetId, LogRef, PartitionCount, PartitionId, Position, Roster};
use storage::cache::Cache;
use storage::cache::memory::MemoryCache;
use storage::definitions::sqlite::SqliteDefinitions;
use storage::log::{LogIdentity, PartitionHandler, Start};
use storage::store::{PartitionRef, Store, StoredPartition};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::GENERATION;
use crate::support::letters::NoLetters;
use crate::support::log::Log;
use crate::support::store::FaultyStore;

const PATIENCE: Duration = Duration::from_secs(20);
const HOUR: Duration = Duration::from_secs(3_600);

/// Commits nothing until it must.
pub const LAZY: Limits = Limits {
    commit_interval: HOUR,
    catch_up_commit_interval: HOUR,
    catch_up_lag: 1_000_000,
    max_uncommitted: 1_000_000,
    rows_interval: HOUR,
    max_replay: 1_000_000,
    storm: StormLimits { run: 1_000, percent: 20 },
};
/// Commits at once.
pub const EAGER: Limits = Limits { commit_interval: Duration::from_millis(1), ..LAZY };

pub fn identity() -> LogIdentity {
    LogIdentity { cluster_id: "c".into(), topic_id: String::new() }
}

pub fn id(partition: u32) -> PartitionRef {
    PartitionRef { generation: GENERATION, partition: PartitionId(partition) }
}

pub struct Process {
    runtime: Runtime,
    pub store: Arc<FaultyStore>,
    pub coordinator: Coordinator,
    cache: Arc<MemoryCache>,
    publisher: Arc<Publisher>,
    metrics: Metrics,
    pages: Router,
    _dir: tempfile::TempDir,
}

impl Process {
    /// A process on a log of so many partitions.
    pub fn new(partitions: u64, limits: Limits) -> Self {
        Self::on(Arc::default(), partitions, limits)
    }

    pub fn on(store: Arc<FaultyStore>, partitions: u64, limits: Limits) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let definitions = SqliteDefinitions::open(&dir.path().join("definitions.db")).unwrap();
        let partitions = PartitionCount::new(partitions).unwrap();
        let metrics = Metrics::new("test");
        let health = Health::new(&HealthConfig {
            unready_after: Duration::ZERO,
            ready_after: Duration::ZERO,
        });
        let of_processor = ProcessorMetrics::new(&metrics).unwrap();
        let cache = Arc::new(MemoryCache::new());
        let publisher = Arc::new(Publisher::new(
            Arc::clone(&cache) as _,
            Arc::new(definitions),
            of_processor.clone(),
        ));
        let runtime = Runtime::new().unwrap();
        let parts = CoordinatorParts {
            store: Arc::clone(&store) as _,
            dead_letters: Arc::new(NoLetters),
            publisher: Arc::clone(&publisher),
            identity: identity(),
            roster: watch::channel(Roster::first(LogRef::first("submissions", partitions))).1,
            limits,
            claim_timeout: Duration::from_millis(200),
            owner: "this process".into(),
            metrics: of_processor,
            check: health.check("partitions"),
        };
        let coordinator = Coordinator::new(parts, runtime.handle().clone());
        let pages = http::router("test", Router::new(), &metrics, &health, &HttpConfig::default());
        Self { runtime, store, coordinator, cache, publisher, metrics, pages, _dir: dir }
    }

    /// The group gives this process partitions of a log, each with the same records.
    pub fn assign(&self, partitions: &[u32], log: &Log) -> Vec<Start> {
        let bounds: Vec<_> =
            partitions.iter().map(|number| (PartitionId(*number), log.bounds())).collect();
        let starts = self.coordinator.assigned(&bounds);
        assert!(starts.iter().map(|(partition, _)| partition).eq(bounds.iter().map(|(p, _)| p)));
        starts.into_iter().map(|(_, start)| start).collect()
    }

    pub fn revoke(&self, partitions: &[u32], lost: bool) {
        let partitions: Vec<_> = partitions.iter().copied().map(PartitionId).collect();
        self.coordinator.revoked(&partitions, lost);
    }

    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    pub fn stored(&self, partition: u32) -> StoredPartition {
        self.block_on(self.store.inner.read_partition(id(partition))).unwrap().unwrap()
    }

    /// Tells the cache everything that is to be told, and ends. What readers see then of a budget: its positions.
    pub fn told(&self, budget: &str) -> Option<Vec<Position>> {
        let stop = CancellationToken::new();
        stop.cancel();
        self.block_on(self.publisher.run(HOUR, stop));
        let budget = BudgetId::parse(budget).unwrap();
        let read = self.block_on(self.cache.read(&[budget])).unwrap().pop().unwrap();
        read.map(|totals| totals.positions)
    }

    /// The value of one line of `/metrics`; `None` when it is not there.
    pub fn metric(&self, name: &str) -> Option<f64> {
        let shown = String::from_utf8(self.metrics.render()).unwrap();
        let line = shown.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
        Some(line.parse().unwrap())
    }

    /// What `/readyz` says: whether it is ready, and the whole text.
    pub fn readiness(&self) -> (bool, String) {
        self.block_on(async {
            let request = Request::get("/readyz").body(Body::empty()).unwrap();
            let answer = self.pages.clone().oneshot(request).await.unwrap();
            let ready = answer.status().is_success();
            let body = to_bytes(answer.into_body(), usize::MAX).await.unwrap();
            (ready, String::from_utf8(body.into()).unwrap())
        })
    }

    /// Waits until so many records of partition 0 are folded.
    pub fn has_folded(&self, records: u64) {
        let name = r#"allocator_processor_records_folded_total{outcome="applied",partition="0"}"#;
        until("they are folded", || self.metric(name) == Some(records as f64));
    }
}

/// Waits for what another thread is about to do.
pub fn until(what: &str, mut there: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !there() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
