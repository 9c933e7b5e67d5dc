//! Rebuild jobs build one new generation whatever happens to their workers: a worker is killed, or stalls and resumes,
//! at each of its store operations.
//!
//! Also rebuild jobs whose generation another command ends, and rebuild jobs on a log without its beginning.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use generations::registry::{self, TransitionRefused};
use operations::jobs::{
    JobExecutorDeps, JobExecutors, JobMetrics, JobWorker, JobWorkerDeps, LEASE_DURATION,
};
use runtime::metrics::Metrics;
use schemas::job::{Job, JobId, JobKind, JobState, NewJob, Priority, Verdict, cancel, retry};
use schemas::{
    Generation, GenerationRegistry, LogRef, PartitionCount, PartitionId, PartitionReport, Position,
    TotalsComparison,
};
use storage::cache::memory::MemoryCache;
use storage::control::sqlite::SqliteControlTopic;
use storage::exports::Exports;
use storage::jobs::{JobStore, submit, update_job};
use storage::log::sqlite::{SqliteDeadLetterJournal, SqliteLog};
use storage::log::{LogBounds, LogIdentity, LogReader, ReadError, RecordStream};
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
const TOPIC: &str = "submissions";

fn count() -> PartitionCount {
    PartitionCount::new(1).unwrap()
}

/// A log of a hundred records, of which none is read. Begins at this position.
#[derive(Default)]
struct Log(AtomicU64);

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

struct World {
    store: Arc<MemoryStore>,
    log: Arc<Log>,
    dir: tempfile::TempDir,
    builder: JoinHandle<()>,
}

impl World {
    async fn new() -> Self {
        let store = Arc::new(MemoryStore::new());
        store
            .change_registry(&GenerationRegistry::first(LogRef::first(TOPIC, count())))
            .await
            .unwrap();
        let builder = tokio::spawn(report_comparisons(Arc::clone(&store)));
        Self { store, log: Arc::default(), dir: tempfile::tempdir().unwrap(), builder }
    }

    fn worker<S: Store + JobStore>(&self, name: &str, store: &Arc<S>) -> JoinHandle<()> {
        // Required by the executors, and not used by rebuilds.
        let path = self.dir.path().join(format!("{name}-log.db"));
        let writer = Arc::new(SqliteLog::open(&path, count()).unwrap());
        let worker = JobWorker::new(JobWorkerDeps {
            jobs: Arc::clone(store) as _,
            executor: Arc::new(JobExecutors::new(JobExecutorDeps {
                logs: Arc::new(SingleLogOpener {
                    with_archive: Arc::clone(&self.log) as _,
                    without_archive: Arc::clone(&self.log) as _,
                }),
                store: Arc::clone(store) as _,
                cache: Arc::new(MemoryCache::new()),
                definitions: Arc::new(
                    SqliteControlTopic::open(&self.dir.path().join(format!("{name}.db"))).unwrap(),
                ),
                dead_letter_journal: Arc::new(SqliteDeadLetterJournal::open(&path).unwrap()),
                writer,
                archive_dir: None,
                exports: Exports::new(self.dir.path()),
            })),
            name: name.into(),
            metrics: JobMetrics::new(&Metrics::new("test")).unwrap(),
            now_ms,
        });
        tokio::spawn(worker.run(CancellationToken::new()))
    }

    async fn submit_rebuild(&self, dry_run: bool) -> JobId {
        let id = JobId::new(now_ms(), uuid::Uuid::new_v4());
        let (kind, priority) = (JobKind::Rebuild { dry_run }, Priority::Normal);
        let new = NewJob { id, kind, priority, requested_by: "an operator".into() };
        submit(self.store.as_ref(), new, now_ms()).await.unwrap().id
    }

    async fn wait_until_ended(&self, id: JobId) -> Job {
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

    async fn registry(&self) -> GenerationRegistry {
        self.store.registry().await.unwrap().unwrap()
    }

    /// Changes the registry as another command would.
    async fn update_registry(
        &self,
        transition: impl Fn(&GenerationRegistry) -> Result<GenerationRegistry, TransitionRefused>,
    ) {
        registry::update_registry(self.store.as_ref(), transition).await.unwrap();
    }

    /// Waits until a job has chosen its generation and the generation has begun.
    async fn wait_until_begun(&self, id: JobId) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.store.job(id).await.unwrap().unwrap().checkpoint.is_none()
            || self.registry().await.building.is_none()
        {
            assert!(Instant::now() < deadline, "no generation has begun");
            sleep(Duration::from_millis(100)).await;
        }
        // By then the job has stored what it read of the generation.
        sleep(Duration::from_secs(1)).await;
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.builder.abort();
    }
}

/// Asserts that one new generation is active and the job's result has the comparison.
async fn assert_rebuilt_once(world: &World, job: &Job, stall_at: (u64, bool)) {
    let registry = world.registry().await;
    assert_eq!((registry.term, registry.active.generation), (2, Generation(2)), "{stall_at:?}");
    assert_eq!((registry.next, registry.building), (Generation(3), None), "{stall_at:?}");
    let JobState::Succeeded { verdict, result, .. } = &job.state else {
        panic!("{stall_at:?}: {job:?}")
    };
    assert_eq!(*verdict, Verdict::Different, "{stall_at:?}: {result}");
    assert_eq!(
        result.as_str(),
        "generation 2 answers now; compared with 1: 100 records, 1 differences\none",
        "{stall_at:?}"
    );
    assert!(job.attempts() <= 2, "{stall_at:?}: {job:?}");
}

/// Counts the store operations of an uninterrupted worker.
async fn count_operations(dry_run: bool) -> u64 {
    let world = World::new().await;
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

/// Stalls a worker at each of its store operations, next to a second worker.
async fn stall_at_every_operation(resumes: bool) {
    for call in 0..count_operations(false).await {
        for after in [false, true] {
            let stall_at = (call, after);
            let world = World::new().await;
            let id = world.submit_rebuild(false).await;
            let stalling = Arc::new(stalling_store(Arc::clone(&world.store), stall_at));
            let one = world.worker("one", &stalling);
            sleep(Duration::from_millis(50)).await;
            let two = world.worker("two", &world.store);
            if resumes {
                while !stalling.is_stalled() {
                    sleep(Duration::from_millis(100)).await;
                }
                // By then the other worker has taken the job over and is executing it.
                sleep(LEASE_DURATION + Duration::from_secs(3)).await;
                stalling.resume();
            }
            let job = world.wait_until_ended(id).await;
            // Time for everything that a resumed worker may still do.
            sleep(LEASE_DURATION * 2).await;
            assert_rebuilt_once(&world, &job, stall_at).await;
            one.abort();
            two.abort();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_rebuild_whose_worker_is_killed_at_any_operation_builds_one_generation() {
    stall_at_every_operation(false).await;
}

#[tokio::test(start_paused = true)]
async fn a_rebuild_whose_worker_stalls_at_any_operation_and_resumes_builds_one_generation() {
    stall_at_every_operation(true).await;
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_whose_worker_is_killed_at_any_operation_leaves_no_generation_and_has_a_result() {
    for call in 0..count_operations(true).await {
        for after in [false, true] {
            let world = World::new().await;
            let id = world.submit_rebuild(true).await;
            let stalling = Arc::new(stalling_store(Arc::clone(&world.store), (call, after)));
            let workers = [world.worker("one", &stalling), world.worker("two", &world.store)];
            let job = world.wait_until_ended(id).await;
            let JobState::Succeeded { result, .. } = &job.state else { panic!("{call}: {job:?}") };
            assert!(result.as_str().starts_with("generation 2 given up: a dry run"), "{result}");
            let registry = world.registry().await;
            assert_eq!((registry.term, registry.next), (1, Generation(3)), "{call}, {after}");
            assert_eq!((registry.building, registry.retired), (None, vec![]), "{call}, {after}");
            workers.iter().for_each(JoinHandle::abort);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_rebuild_does_not_cancel_the_generation_that_it_joined() {
    let world = World::new().await;
    let (first, second) = (world.submit_rebuild(false).await, world.submit_rebuild(false).await);
    let workers = [world.worker("one", &world.store), world.worker("two", &world.store)];
    sleep(Duration::from_secs(3)).await;
    let building = world.registry().await.building.unwrap().job.unwrap();
    let joining = if building == first { second } else { first };
    update_job(world.store.as_ref(), joining, |job| cancel(job, now_ms())).await.unwrap();
    assert!(matches!(world.wait_until_ended(joining).await.state, JobState::Cancelled { .. }));
    let job = world.wait_until_ended(building).await;
    assert_eq!(job.state.name(), "succeeded");
    assert_eq!(world.registry().await.active.generation, Generation(2));

    // The previous generation is kept: no generation is begun, and the job is not retried.
    let third = world.wait_until_ended(world.submit_rebuild(false).await).await;
    let JobState::Dead { reason, .. } = &third.state else { panic!("{third:?}") };
    assert_eq!(reason.as_str(), "generation 1 is kept for rollback: retire it first");
    workers.iter().for_each(JoinHandle::abort);
}

#[tokio::test(start_paused = true)]
async fn a_rebuild_cancelled_while_its_generation_is_built_leaves_nothing_behind() {
    let world = World::new().await;
    let id = world.submit_rebuild(false).await;
    let worker = world.worker("one", &world.store);
    while world.registry().await.building.is_none() {
        sleep(Duration::from_millis(100)).await;
    }
    update_job(world.store.as_ref(), id, |job| cancel(job, now_ms())).await.unwrap();
    assert!(matches!(world.wait_until_ended(id).await.state, JobState::Cancelled { .. }));
    let registry = world.registry().await;
    assert_eq!((registry.term, registry.building, registry.retired), (1, None, vec![]));
    worker.abort();
}

fn verdict_of(job: &Job) -> (Verdict, &str) {
    let JobState::Succeeded { verdict, result, .. } = &job.state else { panic!("{job:?}") };
    (*verdict, result.as_str())
}

fn reason_of(job: &Job) -> &str {
    let JobState::Dead { reason, .. } = &job.state else { panic!("{job:?}") };
    reason.as_str()
}

const NO_BEGINNING: &str = "partition 0 of the log begins at 5: earlier records are gone, and no archive holds them (archive.dir)";

#[tokio::test(start_paused = true)]
async fn a_rebuild_of_a_log_without_its_beginning_is_dead_and_can_be_retried_once_it_is_back() {
    let world = World::new().await;
    world.log.0.store(5, Ordering::Relaxed);
    let worker = world.worker("one", &world.store);
    let id = world.submit_rebuild(false).await;
    assert_eq!(reason_of(&world.wait_until_ended(id).await), NO_BEGINNING);
    assert_eq!(world.registry().await, GenerationRegistry::first(LogRef::first(TOPIC, count())));

    world.log.0.store(0, Ordering::Relaxed);
    update_job(world.store.as_ref(), id, |job| retry(job, now_ms())).await.unwrap();
    assert!(
        verdict_of(&world.wait_until_ended(id).await).1.starts_with("generation 2 answers now; ")
    );
    worker.abort();
}

#[tokio::test(start_paused = true)]
async fn a_rebuild_whose_log_loses_its_beginning_discards_its_own_generation() {
    let world = World::new().await;
    let id = world.submit_rebuild(false).await;
    let one = world.worker("one", &world.store);
    world.wait_until_begun(id).await;
    one.abort();
    world.log.0.store(5, Ordering::Relaxed);
    let two = world.worker("two", &world.store);
    assert_eq!(reason_of(&world.wait_until_ended(id).await), NO_BEGINNING);
    let registry = world.registry().await;
    assert_eq!((registry.next, registry.building, registry.retired), (Generation(3), None, vec![]));

    world.log.0.store(0, Ordering::Relaxed);
    update_job(world.store.as_ref(), id, |job| retry(job, now_ms())).await.unwrap();
    assert!(
        verdict_of(&world.wait_until_ended(id).await).1.starts_with("generation 3 answers now; ")
    );
    two.abort();
}

#[tokio::test(start_paused = true)]
async fn a_rebuild_of_a_log_without_its_beginning_keeps_the_generation_of_another_command() {
    let world = World::new().await;
    world.update_registry(|registry| registry::begin(registry, false, 0)).await;
    world.log.0.store(5, Ordering::Relaxed);
    let worker = world.worker("one", &world.store);
    assert_eq!(
        reason_of(&world.wait_until_ended(world.submit_rebuild(false).await).await),
        NO_BEGINNING
    );
    assert!(world.registry().await.building.is_some());
    worker.abort();
}

#[tokio::test(start_paused = true)]
async fn a_rebuild_whose_joined_generation_is_cancelled_by_another_command_begins_a_new_one() {
    for dry_run in [false, true] {
        let world = World::new().await;
        world.update_registry(|registry| registry::begin(registry, dry_run, 0)).await;
        let id = world.submit_rebuild(dry_run).await;
        let worker = world.worker("one", &world.store);
        world.wait_until_begun(id).await;
        world.update_registry(|registry| registry::cancel(registry, Generation(2))).await;
        let job = world.wait_until_ended(id).await;
        let (verdict, result) = verdict_of(&job);
        assert_eq!((verdict, job.attempts()), (Verdict::Different, 1), "{dry_run}: {result}");
        assert!(result.starts_with("generation 3 "), "{dry_run}: {result}");
        worker.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_whose_generation_is_cancelled_by_another_command_begins_a_new_one() {
    let world = World::new().await;
    let id = world.submit_rebuild(true).await;
    let worker = world.worker("one", &world.store);
    world.wait_until_begun(id).await;
    world.update_registry(|registry| registry::cancel(registry, Generation(2))).await;
    assert!(
        verdict_of(&world.wait_until_ended(id).await)
            .1
            .starts_with("generation 3 given up: a dry run")
    );
    worker.abort();
}

#[tokio::test(start_paused = true)]
async fn a_rebuild_succeeds_if_another_command_switches_to_a_generation_begun_after_its_submission()
{
    for own in [false, true] {
        let world = World::new().await;
        let id = world.submit_rebuild(false).await;
        if !own {
            world.update_registry(|registry| registry::begin(registry, false, now_ms())).await;
        }
        let worker = world.worker("one", &world.store);
        world.wait_until_begun(id).await;
        world.update_registry(|registry| registry::switch_active(registry, Generation(2))).await;
        let result = "generation 2 answers now: compared and switched by another command";
        assert_eq!(
            verdict_of(&world.wait_until_ended(id).await),
            (Verdict::Clean, result),
            "{own}"
        );
        let registry = world.registry().await;
        assert_eq!((registry.term, registry.next), (2, Generation(3)), "{own}");
        worker.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn a_generation_begun_before_the_submission_does_not_complete_a_rebuild() {
    let world = World::new().await;
    world.update_registry(|registry| registry::begin(registry, false, now_ms() - 1)).await;
    let id = world.submit_rebuild(false).await;
    let worker = world.worker("one", &world.store);
    world.wait_until_begun(id).await;
    world.update_registry(|registry| registry::switch_active(registry, Generation(2))).await;
    // The job would begin another generation, which is refused while the previous one is kept.
    let kept = "generation 1 is kept for rollback: retire it first";
    assert_eq!(reason_of(&world.wait_until_ended(id).await), kept);
    world.update_registry(|registry| registry::retire(registry, Generation(1))).await;
    update_job(world.store.as_ref(), id, |job| retry(job, now_ms())).await.unwrap();
    assert!(
        verdict_of(&world.wait_until_ended(id).await).1.starts_with("generation 3 answers now; ")
    );
    worker.abort();
}

#[tokio::test(start_paused = true)]
async fn a_rebuild_whose_generation_number_is_taken_at_any_operation_chooses_another() {
    let mut taken = 0;
    for call in 0..count_operations(false).await {
        let world = World::new().await;
        let id = world.submit_rebuild(false).await;
        let stalling = Arc::new(stalling_store(Arc::clone(&world.store), (call, true)));
        let worker = world.worker("one", &stalling);
        while !stalling.is_stalled() {
            sleep(Duration::from_millis(100)).await;
        }
        if world.registry().await == GenerationRegistry::first(LogRef::first(TOPIC, count())) {
            taken += 1;
            world
                .update_registry(|registry| registry::begin(registry, call % 2 == 0, now_ms()))
                .await;
            world.update_registry(|registry| registry::cancel(registry, Generation(2))).await;
            stalling.resume();
            let job = world.wait_until_ended(id).await;
            let result = verdict_of(&job).1;
            assert!(result.starts_with("generation 3 answers now; "), "{call}: {result}");
            assert_eq!(job.attempts(), 1, "{call}");
        }
        worker.abort();
    }
    assert!(taken > 5, "the number was taken too rarely: {taken}");
}
