//! Rebuilds whose worker is killed, or stands still and comes back, at each of its calls of the store: there is one new
//! generation all the same. And what becomes of a rebuild whose generation somebody else ends, or whose log has lost its
//! beginning.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use processor::generations::{self, Refused};
use processor::jobs::{JobMetrics, Kinds, KindsParts, LEASE, Worker, WorkerParts};
use runtime::metrics::Metrics;
use schemas::job::{Job, JobId, JobKind, JobState, NewJob, Priority, Verdict, cancel, retry};
use schemas::{
    Compared, Generation, LogRef, PartitionCount, PartitionId, PartitionReport, Position, Roster,
};
use storage::cache::memory::MemoryCache;
use storage::definitions::sqlite::SqliteDefinitions;
use storage::exports::Exports;
use storage::jobs::{JobStore, change, submit};
use storage::log::sqlite::{SqliteLetterBook, SqliteLog};
use storage::log::{LogBounds, LogIdentity, LogReader, ReadError, Stretch};
use storage::store::memory::MemoryStore;
use storage::store::{PartitionRef, Store};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::logs::OneLog;
use crate::mortal::Mortal;
use crate::world::now_ms;

const END: Position = Position(100);
const TOPIC: &str = "submissions";

fn count() -> PartitionCount {
    PartitionCount::new(1).unwrap()
}

/// A log of a hundred records that nobody reads here, which begins at this position.
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
    fn follow(&self, _: PartitionId, _: Position, _: watch::Receiver<Position>) -> Stretch {
        panic!("no record is read in these tests");
    }
}

/// What a processor does with a generation that is being built: after five seconds it is compared.
async fn builds(store: Arc<MemoryStore>) {
    loop {
        let roster = store.roster().await.unwrap().unwrap();
        if let Some(building) = roster.building {
            sleep(Duration::from_secs(5)).await;
            let compared = Compared {
                with: roster.current.generation,
                position: END,
                differences: vec!["one".into()],
            };
            let report = PartitionReport {
                position: END,
                rows: END,
                high: END,
                compared: Some(compared),
                trouble: None,
                at_ms: u64::MAX,
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
        store.change_roster(&Roster::first(LogRef::first(TOPIC, count()))).await.unwrap();
        let builder = tokio::spawn(builds(Arc::clone(&store)));
        Self { store, log: Arc::default(), dir: tempfile::tempdir().unwrap(), builder }
    }

    fn worker<S: Store + JobStore>(&self, name: &str, store: &Arc<S>) -> JoinHandle<()> {
        // Dead letters are no matter here.
        let path = self.dir.path().join(format!("{name}-log.db"));
        let letters = Arc::new(SqliteLog::open(&path, count()).unwrap());
        let worker = Worker::new(WorkerParts {
            jobs: Arc::clone(store) as _,
            runner: Arc::new(Kinds::new(KindsParts {
                logs: Arc::new(OneLog {
                    log: Arc::clone(&self.log) as _,
                    alone: Arc::clone(&self.log) as _,
                }),
                store: Arc::clone(store) as _,
                cache: Arc::new(MemoryCache::new()),
                definitions: Arc::new(
                    SqliteDefinitions::open(&self.dir.path().join(format!("{name}.db"))).unwrap(),
                ),
                letters: Arc::new(SqliteLetterBook::open(&path).unwrap()),
                writer: letters,
                archive_dir: None,
                exports: Exports::new(self.dir.path()),
            })),
            name: name.into(),
            metrics: JobMetrics::new(&Metrics::new("test")).unwrap(),
            now_ms,
        });
        tokio::spawn(worker.run(CancellationToken::new()))
    }

    async fn ask(&self, dry_run: bool) -> JobId {
        let id = JobId::new(now_ms(), uuid::Uuid::new_v4());
        let (kind, priority) = (JobKind::Rebuild { dry_run }, Priority::Normal);
        let new = NewJob { id, kind, priority, asked_by: "an operator".into() };
        submit(self.store.as_ref(), new, now_ms()).await.unwrap().id
    }

    async fn ended(&self, id: JobId) -> Job {
        let deadline = Instant::now() + Duration::from_secs(600);
        loop {
            let job = self.store.job(id).await.unwrap().unwrap();
            if job.is_ended() {
                return job;
            }
            assert!(Instant::now() < deadline, "it stays {job:?}");
            sleep(Duration::from_millis(100)).await;
        }
    }

    async fn roster(&self) -> Roster {
        self.store.roster().await.unwrap().unwrap()
    }

    /// Somebody who is no job changes the roster.
    async fn by_hand(&self, step: impl Fn(&Roster) -> Result<Roster, Refused>) {
        generations::change(self.store.as_ref(), step).await.unwrap();
    }

    /// Waits until a job has chosen its generation and somebody has begun that.
    async fn chosen(&self, id: JobId) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.store.job(id).await.unwrap().unwrap().checkpoint.is_none()
            || self.roster().await.building.is_none()
        {
            assert!(Instant::now() < deadline, "nothing is begun");
            sleep(Duration::from_millis(100)).await;
        }
        // What it has seen of that is stored.
        sleep(Duration::from_secs(1)).await;
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.builder.abort();
    }
}

/// One new generation answers, and the job has told what was found.
async fn rebuilt_once(world: &World, job: &Job, stops_at: (u64, bool)) {
    let roster = world.roster().await;
    assert_eq!((roster.term, roster.current.generation), (2, Generation(2)), "{stops_at:?}");
    assert_eq!((roster.next, roster.building), (Generation(3), None), "{stops_at:?}");
    let JobState::Succeeded { verdict, result, .. } = &job.state else {
        panic!("{stops_at:?}: {job:?}")
    };
    assert_eq!(*verdict, Verdict::Different, "{stops_at:?}: {result}");
    assert_eq!(
        result.as_str(),
        "generation 2 answers now; compared with 1: 100 records, 1 differences\none",
        "{stops_at:?}"
    );
    assert!(job.attempts() <= 2, "{stops_at:?}: {job:?}");
}

/// How many calls a worker needs that nobody interrupts.
async fn calls_in_all(dry_run: bool) -> u64 {
    let world = World::new().await;
    let id = world.ask(dry_run).await;
    let mortal = Arc::new(Mortal::stopping(Arc::clone(&world.store), (u64::MAX, false)));
    let worker = world.worker("one", &mortal);
    let job = world.ended(id).await;
    worker.abort();
    assert_eq!(job.attempts(), 1);
    assert!(mortal.calls() > 20, "there is nothing to interrupt: {} calls", mortal.calls());
    mortal.calls()
}

/// At each of its calls a worker stands still, while another one looks on.
async fn interrupted_everywhere(comes_back: bool) {
    for call in 0..calls_in_all(false).await {
        for after in [false, true] {
            let stops_at = (call, after);
            let world = World::new().await;
            let id = world.ask(false).await;
            let mortal = Arc::new(Mortal::stopping(Arc::clone(&world.store), stops_at));
            let one = world.worker("one", &mortal);
            sleep(Duration::from_millis(50)).await;
            let two = world.worker("two", &world.store);
            if comes_back {
                while !mortal.stands_still() {
                    sleep(Duration::from_millis(100)).await;
                }
                // The other one has begun, and is in the middle of it.
                sleep(LEASE + Duration::from_secs(3)).await;
                mortal.go_on();
            }
            let job = world.ended(id).await;
            // What one that came back might still do is done.
            sleep(LEASE * 2).await;
            rebuilt_once(&world, &job, stops_at).await;
            one.abort();
            two.abort();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_rebuild_whose_worker_is_killed_at_any_call_makes_one_new_generation() {
    interrupted_everywhere(false).await;
}

#[tokio::test(start_paused = true)]
async fn a_rebuild_whose_worker_stands_still_at_any_call_and_comes_back_makes_one_new_generation() {
    interrupted_everywhere(true).await;
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_whose_worker_is_killed_at_any_call_leaves_no_generation_and_tells_what_it_found()
{
    for call in 0..calls_in_all(true).await {
        for after in [false, true] {
            let world = World::new().await;
            let id = world.ask(true).await;
            let mortal = Arc::new(Mortal::stopping(Arc::clone(&world.store), (call, after)));
            let workers = [world.worker("one", &mortal), world.worker("two", &world.store)];
            let job = world.ended(id).await;
            let JobState::Succeeded { result, .. } = &job.state else { panic!("{call}: {job:?}") };
            assert!(result.as_str().starts_with("generation 2 given up: a dry run"), "{result}");
            let roster = world.roster().await;
            assert_eq!((roster.term, roster.next), (1, Generation(3)), "{call}, {after}");
            assert_eq!((roster.building, roster.retired), (None, vec![]), "{call}, {after}");
            workers.iter().for_each(JoinHandle::abort);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_rebuild_that_is_cancelled_gives_its_generation_up_and_not_one_that_it_had_joined() {
    let world = World::new().await;
    let (first, second) = (world.ask(false).await, world.ask(false).await);
    let workers = [world.worker("one", &world.store), world.worker("two", &world.store)];
    sleep(Duration::from_secs(3)).await;
    let building = world.roster().await.building.unwrap().job.unwrap();
    let joining = if building == first { second } else { first };
    change(world.store.as_ref(), joining, |job| cancel(job, now_ms())).await.unwrap();
    assert!(matches!(world.ended(joining).await.state, JobState::Cancelled { .. }));
    let job = world.ended(building).await;
    assert_eq!(job.state.name(), "succeeded");
    assert_eq!(world.roster().await.current.generation, Generation(2));

    // There is one to go back to: nothing is begun, and nothing is tried again in vain.
    let third = world.ended(world.ask(false).await).await;
    let JobState::Dead { reason, .. } = &third.state else { panic!("{third:?}") };
    assert_eq!(reason.as_str(), "generation 1 is there to go back to: retire it first");
    workers.iter().for_each(JoinHandle::abort);
}

#[tokio::test(start_paused = true)]
async fn a_rebuild_that_is_cancelled_while_its_generation_is_built_leaves_nothing_of_it() {
    let world = World::new().await;
    let id = world.ask(false).await;
    let worker = world.worker("one", &world.store);
    while world.roster().await.building.is_none() {
        sleep(Duration::from_millis(100)).await;
    }
    change(world.store.as_ref(), id, |job| cancel(job, now_ms())).await.unwrap();
    assert!(matches!(world.ended(id).await.state, JobState::Cancelled { .. }));
    let roster = world.roster().await;
    assert_eq!((roster.term, roster.building, roster.retired), (1, None, vec![]));
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

const NO_BEGINNING: &str = "partition 0 of the log begins at 5: what came before is gone, and no archive of it leads there (archive.dir)";

#[tokio::test(start_paused = true)]
async fn a_rebuild_from_a_log_without_its_beginning_begins_nothing_and_goes_on_once_it_is_there() {
    let world = World::new().await;
    world.log.0.store(5, Ordering::Relaxed);
    let worker = world.worker("one", &world.store);
    let id = world.ask(false).await;
    assert_eq!(reason_of(&world.ended(id).await), NO_BEGINNING);
    assert_eq!(world.roster().await, Roster::first(LogRef::first(TOPIC, count())));

    world.log.0.store(0, Ordering::Relaxed);
    change(world.store.as_ref(), id, |job| retry(job, now_ms())).await.unwrap();
    assert!(verdict_of(&world.ended(id).await).1.starts_with("generation 2 answers now; "));
    worker.abort();
}

#[tokio::test(start_paused = true)]
async fn a_rebuild_whose_log_loses_its_beginning_leaves_no_generation_of_its_own() {
    let world = World::new().await;
    let id = world.ask(false).await;
    let one = world.worker("one", &world.store);
    world.chosen(id).await;
    one.abort();
    world.log.0.store(5, Ordering::Relaxed);
    let two = world.worker("two", &world.store);
    assert_eq!(reason_of(&world.ended(id).await), NO_BEGINNING);
    let roster = world.roster().await;
    assert_eq!((roster.next, roster.building, roster.retired), (Generation(3), None, vec![]));

    world.log.0.store(0, Ordering::Relaxed);
    change(world.store.as_ref(), id, |job| retry(job, now_ms())).await.unwrap();
    assert!(verdict_of(&world.ended(id).await).1.starts_with("generation 3 answers now; "));
    two.abort();
}

#[tokio::test(start_paused = true)]
async fn a_rebuild_without_a_beginning_leaves_alone_what_somebody_else_builds() {
    let world = World::new().await;
    world.by_hand(|roster| generations::begin(roster, false, 0)).await;
    world.log.0.store(5, Ordering::Relaxed);
    let worker = world.worker("one", &world.store);
    assert_eq!(reason_of(&world.ended(world.ask(false).await).await), NO_BEGINNING);
    assert!(world.roster().await.building.is_some());
    worker.abort();
}

#[tokio::test(start_paused = true)]
async fn a_rebuild_whose_joined_generation_is_given_up_by_somebody_else_begins_another() {
    for dry_run in [false, true] {
        let world = World::new().await;
        world.by_hand(|roster| generations::begin(roster, dry_run, 0)).await;
        let id = world.ask(dry_run).await;
        let worker = world.worker("one", &world.store);
        world.chosen(id).await;
        world.by_hand(|roster| generations::cancel(roster, Generation(2))).await;
        let job = world.ended(id).await;
        let (verdict, result) = verdict_of(&job);
        assert_eq!((verdict, job.attempts()), (Verdict::Different, 1), "{dry_run}: {result}");
        assert!(result.starts_with("generation 3 "), "{dry_run}: {result}");
        worker.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_whose_own_generation_another_one_ends_begins_another() {
    let world = World::new().await;
    let id = world.ask(true).await;
    let worker = world.worker("one", &world.store);
    world.chosen(id).await;
    world.by_hand(|roster| generations::cancel(roster, Generation(2))).await;
    assert!(verdict_of(&world.ended(id).await).1.starts_with("generation 3 given up: a dry run"));
    worker.abort();
}

#[tokio::test(start_paused = true)]
async fn a_rebuild_is_done_if_somebody_else_lets_answer_what_was_begun_since_it_was_asked_for() {
    for own in [false, true] {
        let world = World::new().await;
        let id = world.ask(false).await;
        if !own {
            world.by_hand(|roster| generations::begin(roster, false, now_ms())).await;
        }
        let worker = world.worker("one", &world.store);
        world.chosen(id).await;
        world.by_hand(|roster| generations::flip(roster, Generation(2))).await;
        let result = "generation 2 answers now: somebody else compared it and let it";
        assert_eq!(verdict_of(&world.ended(id).await), (Verdict::Clean, result), "{own}");
        let roster = world.roster().await;
        assert_eq!((roster.term, roster.next), (2, Generation(3)), "{own}");
        worker.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn a_rebuild_is_not_done_by_a_generation_that_was_begun_before_it_was_asked_for() {
    let world = World::new().await;
    world.by_hand(|roster| generations::begin(roster, false, now_ms() - 1)).await;
    let id = world.ask(false).await;
    let worker = world.worker("one", &world.store);
    world.chosen(id).await;
    world.by_hand(|roster| generations::flip(roster, Generation(2))).await;
    // It would begin another: that is refused only as long as there is one to go back to.
    let kept = "generation 1 is there to go back to: retire it first";
    assert_eq!(reason_of(&world.ended(id).await), kept);
    world.by_hand(|roster| generations::retire(roster, Generation(1))).await;
    change(world.store.as_ref(), id, |job| retry(job, now_ms())).await.unwrap();
    assert!(verdict_of(&world.ended(id).await).1.starts_with("generation 3 answers now; "));
    worker.abort();
}

#[tokio::test(start_paused = true)]
async fn a_rebuild_whose_number_somebody_else_takes_and_gives_up_at_any_call_takes_another() {
    let mut taken = 0;
    for call in 0..calls_in_all(false).await {
        let world = World::new().await;
        let id = world.ask(false).await;
        let mortal = Arc::new(Mortal::stopping(Arc::clone(&world.store), (call, true)));
        let worker = world.worker("one", &mortal);
        while !mortal.stands_still() {
            sleep(Duration::from_millis(100)).await;
        }
        if world.roster().await == Roster::first(LogRef::first(TOPIC, count())) {
            taken += 1;
            world.by_hand(|roster| generations::begin(roster, call % 2 == 0, now_ms())).await;
            world.by_hand(|roster| generations::cancel(roster, Generation(2))).await;
            mortal.go_on();
            let job = world.ended(id).await;
            let result = verdict_of(&job).1;
            assert!(result.starts_with("generation 3 answers now; "), "{call}: {result}");
            assert_eq!(job.attempts(), 1, "{call}");
        }
        worker.abort();
    }
    assert!(taken > 5, "there was nothing to take: {taken}");
}
