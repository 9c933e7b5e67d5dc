//! A process around a coordinator, with its publisher, metrics and readiness. The test's own thread is the source's.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use engine::coordinator::{Coordinator, CoordinatorDeps, ShadowOwners};
use engine::metrics::EngineMetrics;
use engine::partition::{DeadLetterThresholds, PartitionLimits};
use engine::publisher::Publisher;
use parking_lot::Mutex;
use runtime::health::{Health, HealthConfig};
use runtime::http::{self, HttpConfig};
use runtime::metrics::Metrics;
use schemas::{BudgetId, GenerationRegistry, LogRef, PartitionCount, PartitionId, Position};
use storage::cache::Cache;
use storage::cache::memory::MemoryCache;
use storage::control::sqlite::SqliteControlTopic;
use storage::log::{
    BoundsReader, LogBounds, LogIdentity, PartitionHandler, ReadError, Revocation, StartPosition,
};
use storage::store::{Checkpoints, Epoch, PartitionRef, StoredPartition};
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::GENERATION;
use crate::log_reader::TestLogs;
use crate::support::dead_letters::NoDeadLetters;
use crate::support::log::Log;
use crate::support::store::FaultyStore;

const TIMEOUT: Duration = Duration::from_secs(20);
const HOUR: Duration = Duration::from_secs(3_600);

/// Commits only when a partition is released.
pub const LAZY: PartitionLimits = PartitionLimits {
    commit_interval: HOUR,
    catch_up_commit_interval: HOUR,
    catch_up_lag: 1_000_000,
    max_uncommitted: 1_000_000,
    rows_interval: HOUR,
    max_replay: 1_000_000,
    dead_letters: DeadLetterThresholds { run: 1_000, percent: 20 },
};
/// Commits as often as possible.
pub const EAGER: PartitionLimits =
    PartitionLimits { commit_interval: Duration::from_millis(1), ..LAZY };

pub fn identity() -> LogIdentity {
    LogIdentity { cluster_id: "c".into(), topic_id: String::new() }
}

pub fn id(partition: u32) -> PartitionRef {
    PartitionRef { generation: GENERATION, partition: PartitionId(partition) }
}

/// The bounds of each partition; one without bounds has no leader.
#[derive(Default)]
pub struct TestBounds(Mutex<BTreeMap<PartitionId, LogBounds>>);

impl TestBounds {
    pub fn set(&self, partition: u32, bounds: LogBounds) {
        self.0.lock().insert(PartitionId(partition), bounds);
    }
}

#[async_trait]
impl BoundsReader for TestBounds {
    async fn bounds(&self, partition: PartitionId) -> Result<LogBounds, ReadError> {
        let bounds = self.0.lock().get(&partition).copied();
        bounds.ok_or_else(|| ReadError::Unavailable("the partition has no leader".into()))
    }
}

pub struct Process {
    runtime: Runtime,
    pub store: Arc<FaultyStore>,
    pub coordinator: Coordinator,
    pub bounds: Arc<TestBounds>,
    /// The log as read without the source.
    pub logs: TestLogs,
    pub shadow_owners: Arc<ShadowOwners>,
    registry: watch::Sender<GenerationRegistry>,
    cache: Arc<MemoryCache>,
    publisher: Arc<Publisher>,
    metrics: Metrics,
    router: Router,
    _dir: tempfile::TempDir,
}

impl Process {
    /// Creates a process on a log of `partitions` partitions.
    pub fn new(partitions: u64, limits: PartitionLimits) -> Self {
        Self::on(Arc::default(), partitions, limits)
    }

    pub fn on(store: Arc<FaultyStore>, partitions: u64, limits: PartitionLimits) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let definitions = SqliteControlTopic::open(&dir.path().join("definitions.db")).unwrap();
        let partitions = PartitionCount::new(partitions).unwrap();
        let metrics = Metrics::new("test");
        let health = Health::new(&HealthConfig {
            unready_after: Duration::ZERO,
            ready_after: Duration::ZERO,
        });
        let engine_metrics = EngineMetrics::new(&metrics).unwrap();
        let cache = Arc::new(MemoryCache::new());
        let publisher = Arc::new(Publisher::new(
            Arc::clone(&cache) as _,
            Arc::new(definitions),
            engine_metrics.clone(),
        ));
        let runtime = Runtime::new().unwrap();
        let logs = TestLogs::default();
        let shadow_owners = Arc::<ShadowOwners>::default();
        let first = GenerationRegistry::first(LogRef::first("submissions", partitions));
        let registry = watch::Sender::new(first);
        let deps = CoordinatorDeps {
            store: Arc::clone(&store) as _,
            dead_letters: Arc::new(NoDeadLetters),
            publisher: Arc::clone(&publisher),
            logs: Arc::new(logs.clone()),
            shadow_owners: Arc::clone(&shadow_owners),
            identity: identity(),
            registry: registry.subscribe(),
            limits,
            commit_permits: Arc::new(Semaphore::new(2)),
            claim_timeout: Duration::from_millis(200),
            owner: "this process".into(),
            metrics: engine_metrics,
            check: health.check("partitions"),
        };
        let coordinator = Coordinator::new(deps, runtime.handle().clone());
        let router = http::router("test", Router::new(), &metrics, &health, &HttpConfig::default());
        let bounds = Arc::default();
        Self {
            runtime,
            store,
            coordinator,
            bounds,
            logs,
            shadow_owners,
            registry,
            cache,
            publisher,
            metrics,
            router,
            _dir: dir,
        }
    }

    /// Assigns partitions to this process, each with the records of `log`. Returns where each is read from, once all
    /// are read or have a reason not to be.
    pub fn assign(&self, partitions: &[u32], log: &Log) -> Vec<StartPosition> {
        partitions.iter().for_each(|number| self.bounds.set(*number, log.bounds()));
        self.assign_without_bounds(partitions)
    }

    /// Assigns partitions, each with the records of `log`, and does not wait.
    pub fn begin_assigning(&self, partitions: &[u32], log: &Log) {
        partitions.iter().for_each(|number| self.bounds.set(*number, log.bounds()));
        let all: Vec<_> = partitions.iter().copied().map(PartitionId).collect();
        self.coordinator.assigned(&all, &(Arc::clone(&self.bounds) as Arc<dyn BoundsReader>));
    }

    /// Changes the generation registry as this process sees it.
    pub fn change_registry(&self, change: impl FnOnce(&GenerationRegistry) -> GenerationRegistry) {
        self.registry.send_modify(|registry| *registry = change(registry));
    }

    /// Assigns partitions of which some may have no leader.
    pub fn assign_without_bounds(&self, partitions: &[u32]) -> Vec<StartPosition> {
        let all: Vec<_> = partitions.iter().copied().map(PartitionId).collect();
        self.coordinator.assigned(&all, &(Arc::clone(&self.bounds) as Arc<dyn BoundsReader>));
        let mut starts = BTreeMap::new();
        until("every partition is read or has a reason not to be", || {
            starts.extend(self.coordinator.take_starts());
            let why = self.readiness().1;
            all.iter().all(|partition| {
                matches!(starts.get(partition), Some(StartPosition::At(_)))
                    || why.contains(&format!("partition {partition}: "))
            })
        });
        let start = |partition| starts.get(partition).copied().unwrap_or(StartPosition::Paused);
        all.iter().map(start).collect()
    }

    /// Waits until the source is told to read a partition, and returns from where.
    pub fn next_start(&self, partition: u32) -> Position {
        let mut start = None;
        until("the partition is read", || {
            for (started, at) in self.coordinator.take_starts() {
                if let StartPosition::At(position) = at
                    && started == PartitionId(partition)
                {
                    start = Some(position);
                }
            }
            start.is_some()
        });
        start.unwrap()
    }

    pub fn revoke(&self, partitions: &[u32], revocation: Revocation) {
        let partitions: Vec<_> = partitions.iter().copied().map(PartitionId).collect();
        self.coordinator.revoked(&partitions, revocation);
    }

    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    pub fn stored(&self, partition: u32) -> StoredPartition {
        self.block_on(self.store.inner.read_partition(id(partition))).unwrap().unwrap()
    }

    pub fn epoch(&self, partition: u32) -> Option<Epoch> {
        let stored = self.block_on(self.store.inner.read_partition(id(partition))).unwrap();
        stored.map(|stored| stored.epoch)
    }

    /// The committed position of the owner that a partition has here.
    pub fn committed_position(&self, partition: u32) -> Option<Position> {
        let committed = self.coordinator.committed();
        committed.into_iter().find(|(id, _)| *id == PartitionId(partition)).map(|(_, at)| at)
    }

    /// Flushes the publisher, and returns the positions of a budget as readers see them.
    pub fn published(&self, budget: &str) -> Option<Vec<Position>> {
        let stop = CancellationToken::new();
        stop.cancel();
        self.block_on(self.publisher.run(HOUR, stop));
        let budget = BudgetId::parse(budget).unwrap();
        let read = self.block_on(self.cache.read(&[budget])).unwrap().pop().unwrap();
        read.map(|totals| totals.positions)
    }

    /// Returns the value of one line of `/metrics`, if present.
    pub fn metric(&self, name: &str) -> Option<f64> {
        let rendered = String::from_utf8(self.metrics.render()).unwrap();
        let line = rendered.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
        Some(line.parse().unwrap())
    }

    /// Reads `/readyz`: whether the process is ready, and the response body.
    pub fn readiness(&self) -> (bool, String) {
        self.block_on(async {
            let request = Request::get("/readyz").header("host", "localhost");
            let request = request.body(Body::empty()).unwrap();
            let response = self.router.clone().oneshot(request).await.unwrap();
            let ready = response.status().is_success();
            let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
            (ready, String::from_utf8(body.into()).unwrap())
        })
    }

    /// Waits until `records` records of partition 0 are folded.
    pub fn wait_until_folded(&self, records: u64) {
        let name = r#"allocator_processor_records_folded_total{outcome="applied",partition="0"}"#;
        until("the records are folded", || self.metric(name) == Some(records as f64));
    }
}

/// Waits until a condition holds that another thread is about to fulfil.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + TIMEOUT;
    while !holds() {
        assert!(Instant::now() < deadline, "timed out waiting until {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
