//! One owner's life: taken over, fed, released.

use std::sync::Arc;
use std::time::Duration;

use processor::ProcessorMetrics;
use processor::partition::{
    Ended, Limits, Partition, PartitionParts, Progress, StormLimits, check_log, claim,
};
use processor::publisher::Publisher;
use runtime::metrics::Metrics;
use schemas::{LogRef, PartitionCount, Position, Term};
use storage::cache::memory::MemoryCache;
use storage::definitions::sqlite::SqliteDefinitions;
use storage::log::{LogIdentity, RecordBatch};
use storage::store::Store;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::PARTITION;
use crate::support::letters::NoLetters;
use crate::support::log::Log;
use crate::support::store::FaultyStore;

fn one() -> PartitionCount {
    PartitionCount::new(1).unwrap()
}

pub struct Owner {
    records: mpsc::Sender<RecordBatch>,
    /// What it is fed next.
    pub from: u64,
    stop: CancellationToken,
    pub task: JoinHandle<Ended>,
    pub progress: Arc<Progress>,
}

fn identity(cluster: &str) -> LogIdentity {
    LogIdentity { cluster_id: cluster.into(), topic_id: String::new() }
}

fn publisher(dir: &tempfile::TempDir) -> Arc<Publisher> {
    let definitions = SqliteDefinitions::open(&dir.path().join("definitions.db")).unwrap();
    let metrics = ProcessorMetrics::new(&Metrics::new("test")).unwrap();
    let publisher = Publisher::new(Arc::new(MemoryCache::new()), Arc::new(definitions), metrics);
    publisher.answer_in(Term::FIRST, one());
    Arc::new(publisher)
}

/// Commits as often as it can.
pub const LIMITS: Limits = Limits {
    commit_interval: Duration::from_millis(1),
    catch_up_commit_interval: Duration::from_millis(5),
    catch_up_lag: 1_000,
    max_uncommitted: 100,
    rows_interval: Duration::from_millis(3),
    max_replay: 200,
    storm: StormLimits { run: 1_000, percent: 20 },
};

pub async fn take_over(store: &Arc<FaultyStore>, log: &Log, owner: &str) -> Owner {
    take_over_at_pace(store, log, owner, LIMITS).await
}

pub async fn take_over_at_pace(
    store: &Arc<FaultyStore>,
    log: &Log,
    owner: &str,
    limits: Limits,
) -> Owner {
    let dir = tempfile::tempdir().unwrap();
    let claimed_at = Instant::now();
    let stored = claim(store.as_ref(), PARTITION, owner).await.unwrap();
    let resume = check_log(&stored.checkpoint, &identity("c"), log.bounds()).unwrap();
    let progress = Arc::new(Progress::default());
    let parts = PartitionParts {
        store: store.clone(),
        dead_letters: Arc::new(NoLetters),
        publisher: Some(publisher(&dir)),
        turns_to_write: None,
        identity: identity("c"),
        log: LogRef::first("submissions", one()),
        limits,
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
    pub async fn feed(&mut self, log: &Log, to: u64) {
        while self.from < to {
            let next = (self.from + 23).min(to);
            if self.records.send(log.batch(self.from, next)).await.is_err() {
                return;
            }
            self.from = next;
        }
    }

    pub async fn committed(&self, position: u64) {
        reach(&self.progress, position).await;
    }

    /// Waits until some people's rows count as written.
    pub async fn state_committed(&self, store: &FaultyStore) {
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

    /// Waits until nothing that it was fed waits for it: what it has taken it has folded.
    pub async fn has_taken_all(&self) {
        while self.records.capacity() < self.records.max_capacity() {
            tokio::task::yield_now().await;
        }
    }

    pub async fn release(self) -> Ended {
        self.stop.cancel();
        self.task.await.unwrap()
    }
}

pub async fn reach(progress: &Progress, position: u64) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while progress.committed() < Position(position) {
        assert!(Instant::now() < deadline, "still at {}", progress.committed());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
