//! A store, a log and workers on which rebuild jobs run.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use generations::registry::{self, TransitionRefused};
use operations::jobs::{
    JobExecutorDeps, JobExecutors, JobMetrics, JobWorker, JobWorkerDeps, ScanTurns,
};
use runtime::metrics::Metrics;
use schemas::job::{Job, JobId, JobKind, JobState, NewJob, Priority, Verdict};
use schemas::{
    GenerationRegistry, LogRef, PartitionCount, PartitionId, PartitionReport, Position,
    TotalsComparison,
};
use storage::cache::memory::MemoryCache;
use storage::control::ControlTopic;
use storage::control::sqlite::SqliteControlTopic;
use storage::exports::Exports;
use storage::jobs::{JobStore, submit};
use storage::log::sqlite::{SqliteDeadLetterJournal, SqliteLog};
use storage::log::{LogBounds, LogIdentity, LogReader, ReadError, RecordStream};
use storage::signals::SqliteSignalReader;
use storage::store::memory::MemoryStore;
use storage::store::{Generations, PartitionRef, Store};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::single_log::SingleLogOpener;
use crate::stalling_store::stalling_store;
use crate::world::now_ms;

const END: Position = Position(100);
pub const TOPIC: &str = "submissions";

pub fn count() -> PartitionCount {
    PartitionCount::new(1).unwrap()
}

/// A log of a hundred records, of which none is read. Begins at this position.
#[derive(Default)]
pub struct Log(pub AtomicU64);

#[async_trait]
impl LogReader for Log {
    fn partitions(&self) -> PartitionCount {
        count()
    }
    fn identity(&self) -> LogIdentity {
        LogIdentity { cluster_id: "cluster".into(), topic_id: "topic".into() }
    }
    async fn bounds(&self, _: PartitionId) -> Result<LogBounds, ReadError> {
        Ok(LogBounds { low: Position(self.0.load(Ordering::Relaxed)), high: END })
    }
    fn follow(&self, _: PartitionId, _: Position, _: watch::Receiver<Position>) -> RecordStream {
        panic!("no record is read in these tests");
    }
}

/// Reports like a processor: a generation being built is compared after five seconds.
async fn report_comparisons(store: Arc<MemoryStore>) {
    loop {
        let registry = store.registry().await.unwrap().unwrap();
        if let Some(building) = registry.building {
            sleep(Duration::from_secs(5)).await;
            let compared = TotalsComparison {
                with: registry.active.generation,
                position: END,
                differences: vec!["one".into()],
            };
            let report = PartitionReport {
                position: END,
                rows_position: END,
                log_end: END,
                comparison: Some(compared),
                stall_reason: None,
                reported_at_ms: u64::MAX,
            };
            let (generation, partition) = (building.record.generation, PartitionId(0));
            store.write_report(PartitionRef { generation, partition }, &report).await.unwrap();
        }
        sleep(Duration::from_millis(100)).await;
    }
}

pub struct RebuildWorld {
    pub store: Arc<MemoryStore>,
    pub log: Arc<Log>,
    dir: tempfile::TempDir,
    builder: JoinHandle<()>,
}

impl RebuildWorld {
    pub async fn new() -> Self {
        let store = Arc::new(MemoryStore::new());
        store
            .change_registry(&GenerationRegistry::first(LogRef::first(TOPIC, count())))
            .await
            .unwrap();
        let builder = tokio::spawn(report_comparisons(Arc::clone(&store)));
        Self { store, log: Arc::default(), dir: tempfile::tempdir().unwrap(), builder }
    }

    pub fn worker<S: Store + JobStore>(&self, name: &str, store: &Arc<S>) -> JoinHandle<()> {
        // Required by the executors, and not used by rebuilds.
        let path = self.dir.path().join(format!("{name}-log.db"));
        let writer = Arc::new(SqliteLog::open(&path, count()).unwrap());
        let control = ControlTopic::new(
            SqliteControlTopic::open(&self.dir.path().join(format!("{name}.db"))).unwrap(),
        );
        let worker = JobWorker::new(JobWorkerDeps {
            jobs: Arc::clone(store) as _,
            executor: Arc::new(JobExecutors::new(JobExecutorDeps {
                logs: Arc::new(SingleLogOpener {
                    with_archive: Arc::clone(&self.log) as _,
                    without_archive: Arc::clone(&self.log) as _,
                }),
                store: Arc::clone(store) as _,
                cache: Arc::new(MemoryCache::new()),
                definitions: control.definitions,
                annulments: control.annulments,
                signals: Arc::new(SqliteSignalReader::new(&path)),
                dead_letter_journal: Arc::new(SqliteDeadLetterJournal::open(&path).unwrap()),
                writer,
                archive_dir: None,
                exports: Exports::new(self.dir.path()),
            })),
            name: name.into(),
            metrics: JobMetrics::new(&Metrics::new("test")).unwrap(),
            now_ms,
            turns: ScanTurns::every_second(),
        });
        tokio::spawn(worker.run(CancellationToken::new()))
    }

    pub async fn submit_rebuild(&self, dry_run: bool) -> JobId {
        let id = JobId::new(now_ms(), uuid::Uuid::new_v4());
        let (kind, priority) = (JobKind::Rebuild { dry_run }, Priority::Normal);
        let new = NewJob { id, kind, priority, requested_by: "an operator".into() };
        submit(self.store.as_ref(), new, now_ms()).await.unwrap().id
    }

    pub async fn wait_until_ended(&self, id: JobId) -> Job {
        let deadline = Instant::now() + Duration::from_secs(600);
        loop {
            let job = self.store.job(id).await.unwrap().unwrap();
            if job.is_ended() {
                return job;
            }
            assert!(Instant::now() < deadline, "the job stays {job:?}");
            sleep(Duration::from_millis(100)).await;
        }
    }

    pub async fn registry(&self) -> GenerationRegistry {
        self.store.registry().await.unwrap().unwrap()
    }

    /// Changes the registry as another command would.
    pub async fn update_registry(
        &self,
        transition: impl Fn(&GenerationRegistry) -> Result<GenerationRegistry, TransitionRefused>,
    ) {
        registry::update_registry(self.store.as_ref(), transition).await.unwrap();
    }

    /// Waits until a job's generation has begun, and the job has stored who began it.
    pub async fn wait_until_begun(&self, id: JobId) {
        let deadline = Instant::now() + Duration::from_secs(60);
        let knows_origin = async || {
            let checkpoint = self.store.job(id).await.unwrap().unwrap().checkpoint;
            let state = checkpoint.and_then(|checkpoint| checkpoint.read::<serde_json::Value>());
            state.is_some_and(|state| state["begun"] != "NotYet")
        };
        while !knows_origin().await || self.registry().await.building.is_none() {
            assert!(Instant::now() < deadline, "no generation has begun");
            sleep(Duration::from_millis(100)).await;
        }
    }
}

impl Drop for RebuildWorld {
    fn drop(&mut self) {
        self.builder.abort();
    }
}

/// Counts the store operations of an uninterrupted worker.
pub async fn count_operations(dry_run: bool) -> u64 {
    let world = RebuildWorld::new().await;
    let id = world.submit_rebuild(dry_run).await;
    let stalling = Arc::new(stalling_store(Arc::clone(&world.store), (u64::MAX, false)));
    let worker = world.worker("one", &stalling);
    let job = world.wait_until_ended(id).await;
    worker.abort();
    assert_eq!(job.attempts(), 1);
    assert!(
        stalling.operations() > 20,
        "too few operations to interrupt: {}",
        stalling.operations()
    );
    stalling.operations()
}

pub fn verdict_of(job: &Job) -> (Verdict, &str) {
    let JobState::Succeeded { verdict, result, .. } = &job.state else { panic!("{job:?}") };
    (*verdict, result.as_str())
}

pub fn reason_of(job: &Job) -> &str {
    let JobState::Dead { reason, .. } = &job.state else { panic!("{job:?}") };
    reason.as_str()
}
