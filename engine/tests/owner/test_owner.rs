//! A partition owner under test: takes a partition over, reads batches, is released.

use std::sync::Arc;
use std::time::Duration;

use engine::metrics::EngineMetrics;
use engine::partition::{
    DeadLetterThresholds, OwnerExit, PartitionDeps, PartitionLimits, PartitionOwner,
    PartitionProgress, PreparedPeople, check_log, claim,
};
use engine::publisher::Publisher;
use parking_lot::Mutex;
use runtime::metrics::Metrics;
use schemas::{LogRef, PartitionCount, Position, Term};
use storage::cache::memory::MemoryCache;
use storage::control::sqlite::SqliteControlTopic;
use storage::log::{LogBounds, LogIdentity, RecordBatch};
use storage::store::Checkpoints;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::PARTITION;
use crate::support::dead_letters::NoDeadLetters;
use crate::support::log::Log;
use crate::support::store::FaultyStore;

fn one_partition() -> PartitionCount {
    PartitionCount::new(1).unwrap()
}

pub struct TestOwner {
    records: mpsc::Sender<RecordBatch>,
    /// The offset of the next record to send.
    pub from: u64,
    stop: CancellationToken,
    pub task: JoinHandle<OwnerExit>,
    pub progress: Arc<PartitionProgress>,
    kept: Arc<Mutex<Option<PreparedPeople>>>,
}

fn identity(cluster: &str) -> LogIdentity {
    LogIdentity { cluster_id: cluster.into(), topic_id: String::new() }
}

fn publisher(dir: &tempfile::TempDir) -> Arc<Publisher> {
    let definitions = SqliteControlTopic::open(&dir.path().join("definitions.db")).unwrap();
    let metrics = EngineMetrics::new(&Metrics::new("test")).unwrap();
    let publisher = Publisher::new(Arc::new(MemoryCache::new()), Arc::new(definitions), metrics);
    publisher.set_active_term(Term::FIRST, one_partition());
    Arc::new(publisher)
}

/// Limits with which an owner commits as often as possible.
pub const LIMITS: PartitionLimits = PartitionLimits {
    commit_interval: Duration::from_millis(1),
    catch_up_commit_interval: Duration::from_millis(5),
    catch_up_lag: 1_000,
    max_uncommitted: 100,
    rows_interval: Duration::from_millis(3),
    max_replay: 200,
    dead_letters: DeadLetterThresholds { run: 1_000, percent: 20 },
};

pub async fn take_over(store: &Arc<FaultyStore>, log: &Log, owner: &str) -> TestOwner {
    take_over_with_limits(store, log, owner, LIMITS).await
}

pub async fn take_over_with_limits(
    store: &Arc<FaultyStore>,
    log: &Log,
    owner: &str,
    limits: PartitionLimits,
) -> TestOwner {
    start(store, log.bounds(), owner, limits, None).await
}

/// Takes over with people that were in memory before the claim. `None` if they are not those of the claim.
pub async fn take_over_with_people(
    store: &Arc<FaultyStore>,
    log: &Log,
    owner: &str,
    people: PreparedPeople,
) -> TestOwner {
    start(store, log.bounds(), owner, LIMITS, Some(people)).await
}

/// Takes over when the log has only the records within `bounds`.
pub async fn take_over_log(store: &Arc<FaultyStore>, bounds: LogBounds, owner: &str) -> TestOwner {
    start(store, bounds, owner, LIMITS, None).await
}

async fn start(
    store: &Arc<FaultyStore>,
    bounds: LogBounds,
    owner: &str,
    limits: PartitionLimits,
    people: Option<PreparedPeople>,
) -> TestOwner {
    let dir = tempfile::tempdir().unwrap();
    let claimed_at = Instant::now();
    let stored = claim(store.as_ref(), PARTITION, owner).await.unwrap();
    let mut resume = check_log(&stored.checkpoint, &identity("c"), bounds).unwrap();
    let people = people.map(|people| {
        let (people, with_people) = people.under_claim(&stored, resume).unwrap();
        resume = with_people;
        people
    });
    let progress = Arc::new(PartitionProgress::default());
    let deps = PartitionDeps {
        store: store.clone(),
        dead_letters: Arc::new(NoDeadLetters),
        publisher: Some(publisher(&dir)),
        commit_permits: Arc::new(Semaphore::new(1)),
        row_write_permits: None,
        identity: identity("c"),
        log: LogRef::first("submissions", one_partition()),
        limits,
        metrics: EngineMetrics::new(&Metrics::new("test")).unwrap().partition(PARTITION.partition),
        progress: Arc::clone(&progress),
    };
    let (records, inbox) = mpsc::channel(4);
    let stop = CancellationToken::new();
    let mut partition = PartitionOwner::new(PARTITION, stored, resume, claimed_at, deps);
    if let Some(people) = people {
        partition = partition.with_people(people);
    }
    let run = partition.run_and_keep_people(inbox, stop.clone());
    let kept = Arc::<Mutex<Option<PreparedPeople>>>::default();
    let keeps = Arc::clone(&kept);
    let task = tokio::spawn(async move {
        let (exit, people) = run.await;
        *keeps.lock() = people;
        exit
    });
    TestOwner { records, from: resume.from.0, stop, task, progress, kept }
}

impl TestOwner {
    pub async fn send(&mut self, log: &Log, to: u64) {
        while self.from < to {
            let next = (self.from + 23).min(to);
            if self.records.send(log.batch(self.from, next)).await.is_err() {
                return;
            }
            self.from = next;
        }
    }

    /// Sends a batch that is not of a [`Log`].
    pub async fn send_batch(&mut self, batch: RecordBatch) {
        self.from += batch.len() as u64;
        self.records.send(batch).await.unwrap();
    }

    pub async fn committed(&self, position: u64) {
        wait_for_commit(&self.progress, position).await;
    }

    /// Waits until a round of person rows is committed.
    pub async fn rows_committed(&self, store: &FaultyStore) {
        self.rows_committed_up_to(store, 1).await;
    }

    /// Waits until the rows of every record below a position are committed.
    pub async fn rows_committed_up_to(&self, store: &FaultyStore, position: u64) {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let stored = store.inner.read_partition(PARTITION).await.unwrap().unwrap();
            let rows_position = stored.checkpoint.rows_position;
            if rows_position >= Position(position) {
                return;
            }
            assert!(Instant::now() < deadline, "rows are committed up to {rows_position}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Waits until the owner has folded every batch it was sent.
    pub async fn folded_all(&self) {
        while self.records.capacity() < self.records.max_capacity() {
            tokio::task::yield_now().await;
        }
    }

    /// Releases the owner and returns the people that it keeps.
    pub async fn release_and_keep(self) -> Option<PreparedPeople> {
        let kept = Arc::clone(&self.kept);
        assert_eq!(self.release().await, OwnerExit::Released);
        kept.lock().take()
    }

    pub async fn release(self) -> OwnerExit {
        self.stop.cancel();
        self.task.await.unwrap()
    }
}

pub async fn wait_for_commit(progress: &PartitionProgress, position: u64) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while progress.committed() < Position(position) {
        assert!(Instant::now() < deadline, "still at {}", progress.committed());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
