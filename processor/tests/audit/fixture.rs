//! A whole processor on embedded places, and people who keep changing their minds.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use processor::audit::{AuditParts, AuditProgress, Report, audit};
use processor::partition::{Limits, StormLimits};
use processor::{Processor, ProcessorConfig, ProcessorParts};
use runtime::health::{Health, HealthConfig};
use runtime::metrics::Metrics;
use schemas::{
    Action, Allocation, BudgetId, Generation, PartitionCount, PartitionId, PersonKey, Position,
    Submission, SubmissionId, encode_record, partition_for,
};
use storage::cache::Cache;
use storage::cache::memory::MemoryCache;
use storage::definitions::sqlite::SqliteDefinitions;
use storage::log::sqlite::{SqliteLog, SqliteReader};
use storage::log::{LogWriter, NewRecord};
use storage::store::memory::MemoryStore;
use storage::store::{Commit, Epoch, PartitionRef, Store, StoredPartition};
use tempfile::TempDir;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub const PARTITIONS: u32 = 2;
pub const BUDGETS: [&str; 2] = ["roads", "schools"];
const PEOPLE: u64 = 60;
const PATIENCE: Duration = Duration::from_secs(30);
const TOPIC: &str = "submissions";
const LIMITS: Limits = Limits {
    commit_interval: Duration::from_millis(2),
    catch_up_commit_interval: Duration::from_millis(2),
    catch_up_lag: 1_000_000,
    max_uncommitted: 1_000_000,
    rows_interval: Duration::from_millis(5),
    max_replay: 1_000_000,
    storm: StormLimits { run: 1_000, percent: 20 },
};

pub struct Fixture {
    pub store: Arc<MemoryStore>,
    pub cache: Arc<dyn Cache>,
    pub apis: Vec<String>,
    pub dir: TempDir,
    log: Arc<SqliteLog>,
    processor: Option<Processor>,
    stop: CancellationToken,
    appended: AtomicU64,
}

pub fn id(partition: u32) -> PartitionRef {
    PartitionRef { generation: Generation::FIRST, partition: PartitionId(partition) }
}

pub fn count() -> PartitionCount {
    PartitionCount::new(PARTITIONS.into()).unwrap()
}

pub fn budget(name: &str) -> BudgetId {
    BudgetId::parse(name).unwrap()
}

impl Fixture {
    pub async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let log = Arc::new(SqliteLog::open(&dir.path().join("log.db"), count()).unwrap());
        let store = Arc::new(MemoryStore::new());
        let cache: Arc<dyn Cache> = Arc::new(MemoryCache::new());
        let parts = ProcessorParts {
            source: Box::new(log.source().unwrap()),
            topic: TOPIC.into(),
            dead_letters: Arc::clone(&log) as _,
            store: Arc::clone(&store) as _,
            cache: Arc::clone(&cache),
            definitions: Arc::new(SqliteDefinitions::open(&dir.path().join("d.db")).unwrap()),
        };
        let config = ProcessorConfig {
            listen: "127.0.0.1:0".parse().unwrap(),
            limits: LIMITS,
            republish_interval: Duration::from_secs(1),
            claim_timeout: Duration::from_secs(3),
        };
        let now = HealthConfig { unready_after: Duration::ZERO, ready_after: Duration::ZERO };
        let (metrics, health) = (Metrics::new("test"), Health::new(&now));
        let stop = CancellationToken::new();
        let processor =
            Processor::start(&config, parts, &metrics, &health, stop.clone()).await.unwrap();
        let (apis, appended) = (Vec::new(), AtomicU64::new(0));
        Self { store, cache, apis, dir, log, processor: Some(processor), stop, appended }
    }

    /// Appends so many more records: new and repeated submissions, withdrawals, and garbage.
    pub async fn append(&self, records: u64) {
        let first = self.appended.fetch_add(records, Ordering::Relaxed);
        let answers = self.log.append((first..first + records).map(record).collect()).await;
        answers.into_iter().collect::<Result<Vec<_>, _>>().unwrap();
    }

    /// Waits until everything is committed, everyone's row is in the table, and the cache has been told.
    pub async fn settle(&self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut settled = true;
            let mut positions = 0;
            for partition in 0..PARTITIONS {
                let stored = self.store.read_partition(id(partition)).await.unwrap();
                let Some(StoredPartition { checkpoint, .. }) = stored else {
                    settled = false;
                    continue;
                };
                settled &= checkpoint.position == checkpoint.state_position;
                positions += checkpoint.position.0;
            }
            if settled && positions == self.appended.load(Ordering::Relaxed) && self.is_told().await
            {
                return;
            }
            assert!(Instant::now() < deadline, "not everything is committed and told");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    pub async fn commits_more_than(&self, records: u64) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut positions = 0;
            for partition in 0..PARTITIONS {
                positions += self.stored(partition).await.checkpoint.position.0;
            }
            if positions > records {
                return;
            }
            assert!(Instant::now() < deadline, "nothing is committed");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    async fn is_told(&self) -> bool {
        let budgets = BUDGETS.map(budget);
        let shown = self.cache.read(&budgets).await.unwrap();
        for (budget, shown) in budgets.iter().zip(shown) {
            let stored = self.positions(budget).await;
            if shown.is_none_or(|shown| shown.positions != stored) {
                return false;
            }
        }
        true
    }

    async fn positions(&self, budget: &BudgetId) -> Vec<Position> {
        let mut positions = Vec::new();
        for partition in 0..PARTITIONS {
            let stored = self.stored(partition).await;
            let totals = stored.totals.iter().find(|(id, _)| id == budget);
            positions.push(totals.map_or(Position::START, |(_, totals)| totals.position));
        }
        positions
    }

    pub async fn stored(&self, partition: u32) -> StoredPartition {
        self.store.read_partition(id(partition)).await.unwrap().unwrap()
    }

    /// Ends the processor: what is done to the store from now on stays.
    pub async fn end(&mut self) {
        self.stop.cancel();
        self.processor.take().unwrap().stopped().await;
    }

    /// Commits something else in the place of what is committed.
    pub async fn overwrite(&self, partition: u32, change: impl FnOnce(&mut StoredPartition)) {
        let mut stored = self.stored(partition).await;
        let (from, epoch) = (stored.checkpoint.position, stored.epoch);
        let next = Epoch(epoch.0 + 1);
        self.store.claim(id(partition), Some(epoch), next, "a vandal").await.unwrap();
        change(&mut stored);
        let StoredPartition { checkpoint, totals, .. } = stored;
        let commit = Commit { epoch: next, from, checkpoint, totals };
        self.store.commit(id(partition), &commit).await.unwrap();
    }

    pub async fn audit(&self) -> Report {
        let reader = SqliteReader::open(&self.dir.path().join("log.db"), count()).unwrap();
        let parts = AuditParts {
            log: Arc::new(reader),
            topic: TOPIC.into(),
            store: Arc::clone(&self.store) as _,
            cache: Some(Arc::clone(&self.cache)),
            apis: self.apis.clone(),
        };
        audit(&parts, &AuditProgress::default()).await.unwrap()
    }
}

/// What an audit found, as it is printed.
pub fn said(report: &Report) -> Vec<String> {
    let differences = report.differences.iter().map(ToString::to_string);
    differences.chain(report.unchecked.iter().cloned()).collect()
}

fn record(number: u64) -> NewRecord {
    let who = (number * 7_919) % PEOPLE;
    let key = u128::from(who + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    let person = PersonKey::from_bytes(key.to_le_bytes());
    let partition = partition_for(&person, count());
    if number % 23 == 22 {
        return NewRecord { partition, key: person, value: b"no submission".to_vec() };
    }
    let share = (number * 37 % 101 * 100) as u32;
    let shares = Allocation::new(&[share, 10_000 - share]).unwrap();
    // Now and then somebody's latest submission comes once more.
    let id = if number % 17 == 16 { number.saturating_sub(PEOPLE) } else { number };
    let value = encode_record(&Submission {
        budget: budget(BUDGETS[(who % 2) as usize]),
        person,
        id: SubmissionId(uuid::Uuid::from_u128(u128::from(id))),
        accepted_at_ms: 1_700_000_000_000 + number,
        action: if number % 13 == 12 { Action::Withdraw } else { Action::Allocate(shares) },
    });
    NewRecord { partition, key: person, value }
}
