//! A partition's owner on a store whose answers get lost: whatever happens, the totals are the fold of the log.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod log;
mod lossy;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use log::Log;
use lossy::Lossy;
use processor::ProcessorMetrics;
use processor::coordinator::Progress;
use processor::partition::{
    Ended, HaltReason, Limits, Partition, PartitionParts, check_log, claim,
};
use processor::publisher::Publisher;
use runtime::metrics::Metrics;
use schemas::{BudgetId, Generation, Offset, PartitionCount, PartitionId, PersonRow, Position};
use storage::cache::memory::MemoryCache;
use storage::definitions::sqlite::SqliteDefinitions;
use storage::log::{AppendError, DeadLetter, DeadLetters, LogIdentity, RecordBatch};
use storage::store::{Checkpoint, PartitionRef, Store};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

const PARTITION: PartitionRef =
    PartitionRef { generation: Generation(1), partition: PartitionId(0) };

fn one() -> PartitionCount {
    PartitionCount::new(1).unwrap()
}

#[derive(Default)]
struct NoLetters;

#[async_trait]
impl DeadLetters for NoLetters {
    async fn put(&self, letters: &[DeadLetter]) -> Result<(), AppendError> {
        panic!("no record of these tests is a dead letter: {letters:?}");
    }
}

struct Owner {
    records: mpsc::Sender<RecordBatch>,
    from: u64,
    stop: CancellationToken,
    task: JoinHandle<Ended>,
    progress: Arc<Progress>,
}

fn identity(cluster: &str) -> LogIdentity {
    LogIdentity { cluster_id: cluster.into(), topic_id: String::new() }
}

fn publisher(dir: &tempfile::TempDir) -> Arc<Publisher> {
    let definitions = SqliteDefinitions::open(&dir.path().join("definitions.db")).unwrap();
    let metrics = ProcessorMetrics::new(&Metrics::new("test")).unwrap();
    Arc::new(Publisher::new(Arc::new(MemoryCache::new()), Arc::new(definitions), one(), metrics))
}

async fn take_over(store: &Arc<Lossy>, log: &Log, owner: &str) -> Owner {
    let dir = tempfile::tempdir().unwrap();
    let claimed_at = Instant::now();
    let stored = claim(store.as_ref(), PARTITION, owner).await.unwrap();
    let resume = check_log(&stored.checkpoint, &identity("c"), log.bounds()).unwrap();
    let progress = Arc::new(Progress::default());
    let parts = PartitionParts {
        store: store.clone(),
        dead_letters: Arc::new(NoLetters),
        publisher: publisher(&dir),
        identity: identity("c"),
        partitions: one(),
        limits: Limits {
            commit_interval: Duration::from_millis(1),
            catch_up_commit_interval: Duration::from_millis(5),
            catch_up_lag: 1_000,
            max_uncommitted: 100,
            rows_interval: Duration::from_millis(3),
            max_replay: 200,
        },
        metrics: ProcessorMetrics::new(&Metrics::new("test"))
            .unwrap()
            .partition(PARTITION.partition),
        progress: Arc::clone(&progress),
    };
    let (records, inbox) = mpsc::channel(4);
    let stop = CancellationToken::new();
    let life =
        Partition::new(PARTITION, stored, resume, claimed_at, parts).run(inbox, stop.clone());
    Owner { records, from: resume.from.0, stop, task: tokio::spawn(life), progress }
}

impl Owner {
    async fn feed(&mut self, log: &Log, to: u64) {
        while self.from < to {
            let next = (self.from + 23).min(to);
            if self.records.send(log.batch(self.from, next)).await.is_err() {
                return;
            }
            self.from = next;
        }
    }

    async fn committed(&self, position: u64) {
        reach(&self.progress, position).await;
    }

    /// Waits until some people's rows count as written.
    async fn state_committed(&self, store: &Lossy) {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let stored = store.inner.read_partition(PARTITION).await.unwrap().unwrap();
            if stored.checkpoint.state_position > Position::START {
                return;
            }
            assert!(Instant::now() < deadline, "no round of rows came to its end");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    async fn release(self) -> Ended {
        self.stop.cancel();
        self.task.await.unwrap()
    }
}

async fn reach(progress: &Progress, position: u64) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while progress.committed() < Position(position) {
        assert!(Instant::now() < deadline, "still at {}", progress.committed());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// One owner's life to the log's end; `false` if it found that the store had gone back.
async fn fold_whole_log(store: &Arc<Lossy>, log: &Log) -> bool {
    let mut owner = take_over(store, log, "owner again").await;
    let high = log.bounds().high.0;
    owner.feed(log, high).await;
    let progress = Arc::clone(&owner.progress);
    let ended = tokio::select! {
        ended = &mut owner.task => ended.unwrap(),
        () = reach(&progress, high) => owner.release().await,
    };
    match ended {
        Ended::StoreWentBack => false,
        ended => {
            assert_eq!(ended, Ended::Released);
            true
        }
    }
}

async fn assert_totals(store: &Lossy, log: &Log) {
    let stored = store.inner.read_partition(PARTITION).await.unwrap().unwrap();
    let (_, totals) = &stored.totals[0];
    let sums: Vec<u64> = totals.categories.iter().map(|category| category.basis_points).collect();
    assert_eq!((totals.people, sums), log.expected());
    let tally = stored.checkpoint.tally;
    assert_eq!(stored.checkpoint.position, log.bounds().high);
    assert_eq!(tally.applied + tally.duplicates + tally.dead_lettered, log.0.len() as u64);
    assert!(stored.checkpoint.state_position <= stored.checkpoint.position);
}

#[tokio::test(flavor = "multi_thread")]
async fn totals_are_exact_though_answers_get_lost_and_owners_die_at_any_moment() {
    let log = Log::of(3_000);
    let store = Lossy::new(true);
    for (number, to) in (500..=3_000).step_by(500).enumerate() {
        let mut owner = take_over(&store, &log, &format!("owner-{number}")).await;
        owner.feed(&log, to).await;
        if number.is_multiple_of(2) {
            // Dies with whatever it was doing.
            owner.task.abort();
            let _ = owner.task.await;
        } else {
            assert_eq!(owner.release().await, Ended::Released);
        }
    }
    let mut last = take_over(&store, &log, "last").await;
    last.feed(&log, 3_000).await;
    last.committed(3_000).await;
    assert_eq!(last.release().await, Ended::Released);
    assert_totals(&store, &log).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_former_owner_is_fenced_at_its_next_commit_and_changes_nothing() {
    let log = Log::of(1_000);
    let store = Lossy::new(false);
    let mut zombie = take_over(&store, &log, "zombie").await;
    zombie.feed(&log, 400).await;
    zombie.committed(400).await;
    let mut owner = take_over(&store, &log, "owner").await;
    zombie.feed(&log, 900).await;
    assert_eq!(zombie.task.await.unwrap(), Ended::Fenced);
    owner.feed(&log, 1_000).await;
    owner.committed(1_000).await;
    assert_eq!(owner.release().await, Ended::Released);
    assert_totals(&store, &log).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_commits_what_was_folded() {
    let log = Log::of(100);
    let store = Lossy::new(false);
    let mut owner = take_over(&store, &log, "owner").await;
    owner.feed(&log, 100).await;
    while owner.records.capacity() < owner.records.max_capacity() {
        tokio::task::yield_now().await;
    }
    assert_eq!(owner.release().await, Ended::Released);
    let stored = store.inner.read_partition(PARTITION).await.unwrap().unwrap();
    assert!(stored.checkpoint.position >= Position(92), "{}", stored.checkpoint.position);
}

#[tokio::test(flavor = "multi_thread")]
async fn once_everyones_row_is_written_nothing_is_left_to_replay() {
    let mut log = Log::of(300);
    let store = Lossy::new(false);
    let mut owner = take_over(&store, &log, "owner").await;
    owner.feed(&log, 300).await;
    // Records that change nobody are not written anywhere.
    let again = log.0[200..].to_vec();
    log.0.extend(again);
    owner.feed(&log, 400).await;
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let stored = store.inner.read_partition(PARTITION).await.unwrap().unwrap();
        let Checkpoint { position, state_position, .. } = stored.checkpoint;
        if position == Position(400) && state_position == position {
            break;
        }
        assert!(Instant::now() < deadline, "{state_position} of {position}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(owner.release().await, Ended::Released);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recreated_topic_halts_the_partition_before_anything_new_is_folded() {
    let log = Log::of(300);
    let store = Lossy::new(false);
    let mut owner = take_over(&store, &log, "owner").await;
    owner.feed(&log, 300).await;
    owner.committed(300).await;
    owner.release().await;
    let before = store.inner.read_partition(PARTITION).await.unwrap().unwrap();

    let mut other = Log::of(400);
    other.0.rotate_left(7);
    let mut owner = take_over(&store, &other, "next").await;
    owner.feed(&other, 400).await;
    let ended = owner.task.await.unwrap();
    assert!(matches!(ended, Ended::Halted(HaltReason::OtherRecord(Offset(299)))), "{ended:?}");
    let after = store.inner.read_partition(PARTITION).await.unwrap().unwrap();
    assert_eq!((after.checkpoint, after.totals), (before.checkpoint, before.totals));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_loses_an_acknowledged_commit_has_it_folded_again() {
    let log = Log::of(600);
    let store = Lossy::new(false);
    let mut owner = take_over(&store, &log, "owner").await;
    owner.feed(&log, 200).await;
    owner.committed(200).await;
    store.forgets.store(true, Ordering::Relaxed);
    owner.feed(&log, 400).await;
    assert_eq!(owner.task.await.unwrap(), Ended::StoreWentBack);
    // Once more if rows were written of what was believed committed.
    let mut lives = 1;
    while !fold_whole_log(&store, &log).await {
        lives += 1;
        assert!(lives <= 2);
    }
    assert_totals(&store, &log).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_ahead_of_the_totals_are_disowned_and_people_replayed_from_the_logs_beginning() {
    let log = Log::of(600);
    let store = Lossy::new(false);
    let mut owner = take_over(&store, &log, "owner").await;
    owner.feed(&log, 300).await;
    owner.committed(300).await;
    owner.state_committed(&store).await;
    assert_eq!(owner.release().await, Ended::Released);

    // As left behind when the commit of 300..400 is lost, and the row that followed it is not.
    let (person, _, shares) = &log.0[350];
    let ahead = PersonRow {
        person: *person,
        budget: BudgetId::parse("b").unwrap(),
        offset: Offset(350),
        basis_points: shares.iter().map(|share| *share as u16).collect(),
        recent: Default::default(),
    };
    store.inner.write_people(PARTITION, &[ahead]).await.unwrap();

    let owner = take_over(&store, &log, "owner again").await;
    assert!(owner.from > 0);
    assert_eq!(owner.task.await.unwrap(), Ended::StoreWentBack);
    assert!(fold_whole_log(&store, &log).await);
    assert_totals(&store, &log).await;
}
