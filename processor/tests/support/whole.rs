//! A whole processor on embedded places, and people who keep changing their minds. Not every test needs all of it.
#![allow(dead_code)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use processor::ProcessorParts;
use processor::archive::ArchiveParts;
use processor::audit::{AuditParts, AuditProgress, Report, audit};
use processor::partition::{Limits, StormLimits};
use schemas::{
    Action, Allocation, Budget, BudgetId, BudgetTotals, Category, CategoryId, Generation, Identity,
    LogRef, PartitionCount, PartitionId, PersonKey, Position, Receipt, Results, Submission,
    SubmissionId, encode_record, partition_for,
};
use storage::cache::Cache;
use storage::cache::memory::MemoryCache;
use storage::definitions::sqlite::SqliteDefinitions;
use storage::exports::Exports;
use storage::log::archive::ArchivedReader;
use storage::log::sqlite::{SqliteLetterBook, SqliteLog, SqliteReader};
use storage::log::{LogReader, LogWriter, NewRecord};
use storage::store::memory::MemoryStore;
use storage::store::{Commit, Epoch, PartitionRef, Store, StoredPartition};
use tempfile::TempDir;
use tokio::time::Instant;

use crate::logs::OneLog;
use crate::running::Running;

pub const PARTITIONS: u32 = 4;
pub const CATEGORIES: [&str; 2] = ["first", "second"];
pub const BUDGETS: [&str; 2] = ["roads", "schools"];
const PEOPLE: u64 = 60;
const PATIENCE: Duration = Duration::from_secs(30);
pub const TOPIC: &str = "submissions";
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
    pub limits: Limits,
    pub dir: TempDir,
    /// The folder of the log's archive.
    pub archive: Option<PathBuf>,
    /// By which jobs append to the log.
    pub writer: Arc<dyn LogWriter>,
    log: Arc<SqliteLog>,
    processor: Option<Running>,
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

/// A budget of the categories that records have.
pub fn definition(id: &str) -> Arc<Budget> {
    let category = |id: &str| Category {
        id: CategoryId::parse(id).unwrap(),
        name: format!("The {id}; \"so to say\""),
        description: None,
        color: None,
    };
    Arc::new(Budget {
        id: budget(id),
        name: "Roads; or schools?".into(),
        categories: CATEGORIES.map(category).to_vec(),
        opens_at: None,
        closes_at: None,
        results: Results::Live,
        minimum_people: 1,
        identity: Identity::Required,
        revision: 1,
        frozen: true,
    })
}

impl Fixture {
    pub async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let log = Arc::new(SqliteLog::open(&dir.path().join("log.db"), count()).unwrap());
        let store = Arc::new(MemoryStore::new());
        let cache: Arc<dyn Cache> = Arc::new(MemoryCache::new());
        let (apis, limits, archive, appended) = (Vec::new(), LIMITS, None, AtomicU64::new(0));
        let (processor, writer) = (None, Arc::clone(&log) as _);
        let mut fixture =
            Self { store, cache, apis, limits, dir, archive, writer, log, processor, appended };
        fixture.begin().await;
        fixture
    }

    /// With a settled log of some thousand records.
    pub async fn settled() -> Self {
        let fixture = Self::start().await;
        fixture.append(3_000).await;
        fixture.settle().await;
        fixture
    }

    /// Starts a processor, on whatever is there.
    pub async fn begin(&mut self) {
        let parts = ProcessorParts {
            source: Box::new(self.log.source().unwrap()),
            logs: Arc::new(OneLog {
                log: self.archived_reader().await,
                alone: Arc::new(self.reader()),
            }),
            first_log: LogRef::first(TOPIC, count()),
            dead_letters: Arc::clone(&self.log) as _,
            letters: Arc::new(self.letters()),
            writer: Arc::clone(&self.writer),
            store: Arc::clone(&self.store) as _,
            jobs: Arc::clone(&self.store) as _,
            cache: Arc::clone(&self.cache),
            definitions: Arc::new(SqliteDefinitions::open(&self.dir.path().join("d.db")).unwrap()),
            archive_dir: self.archive.clone(),
            exports: self.exports(),
        };
        self.processor = Some(Running::start(parts, self.limits).await);
    }

    /// What is archived to a folder.
    pub fn archiving(&self, dir: &Path) -> ArchiveParts {
        ArchiveParts {
            log: Arc::new(self.reader()),
            topic: TOPIC.into(),
            store: Arc::clone(&self.store) as _,
            dir: dir.to_owned(),
        }
    }

    /// Where exports are written to.
    pub fn exports(&self) -> Exports {
        Exports::new(self.dir.path().join("exports"))
    }

    /// The book of dead letters.
    pub fn letters(&self) -> SqliteLetterBook {
        SqliteLetterBook::open(&self.dir.path().join("log.db")).unwrap()
    }

    pub fn reader(&self) -> SqliteReader {
        SqliteReader::open(&self.dir.path().join("log.db"), count()).unwrap()
    }

    /// The log with its archive before it, if there is one.
    pub async fn archived_reader(&self) -> Arc<dyn LogReader> {
        let log: Arc<dyn LogReader> = Arc::new(self.reader());
        match &self.archive {
            Some(dir) => Arc::new(ArchivedReader::open(dir, TOPIC, log).await),
            None => log,
        }
    }

    /// A partition in the generation that answers.
    pub async fn id(&self, partition: u32) -> PartitionRef {
        let roster = self.store.roster().await.unwrap().unwrap();
        let generation = roster.current.generation;
        PartitionRef { generation, partition: PartitionId(partition) }
    }

    /// Appends so many more records: new and repeated submissions, withdrawals, and garbage.
    pub async fn append(&self, records: u64) {
        let first = self.appended.fetch_add(records, Ordering::Relaxed);
        let answers = self.log.append((first..first + records).map(record).collect()).await;
        answers.into_iter().collect::<Result<Vec<_>, _>>().unwrap();
    }

    /// Appends a good submission of somebody new to the partition that it does not belong to.
    pub async fn misplace(&self) -> Receipt {
        self.appended.fetch_add(1, Ordering::Relaxed);
        let person = PersonKey::from_bytes([0x5a; PersonKey::BYTES]);
        let partition = PartitionId((partition_for(&person, count()).0 + 1) % PARTITIONS);
        let value = encode_record(&Submission {
            budget: budget(BUDGETS[0]),
            person,
            id: SubmissionId(uuid::Uuid::from_u128(u128::MAX)),
            accepted_at_ms: 1_800_000_000_000,
            action: Action::Allocate(Allocation::new(&[4_000, 6_000]).unwrap()),
        });
        let record = NewRecord { key: person, value };
        self.log.append_to(vec![(partition, record)]).await.remove(0).unwrap()
    }

    /// Waits until everything is committed, everyone's row is in the table, and the cache has been told.
    pub async fn settle(&self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut settled = true;
            let mut positions = 0;
            for partition in 0..PARTITIONS {
                let stored = self.store.read_partition(self.id(partition).await).await.unwrap();
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
        let term = self.store.roster().await.unwrap().unwrap().term();
        let budgets = BUDGETS.map(budget);
        let shown = self.cache.read(&budgets).await.unwrap();
        for (budget, shown) in budgets.iter().zip(shown) {
            let stored = self.positions(budget).await;
            if shown.is_none_or(|shown| (shown.term, shown.positions) != (term, stored)) {
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
        self.store.read_partition(self.id(partition).await).await.unwrap().unwrap()
    }

    /// Ends the processor: what is done to the store from now on stays.
    pub async fn end(&mut self) {
        self.processor.take().unwrap().end().await;
    }

    /// Commits something else in the place of what is committed.
    pub async fn overwrite(&self, partition: u32, change: impl FnOnce(&mut StoredPartition)) {
        let mut stored = self.stored(partition).await;
        let (from, epoch) = (stored.checkpoint.position, stored.epoch);
        let (next, id) = (Epoch(epoch.0 + 1), self.id(partition).await);
        self.store.claim(id, Some(epoch), next, "a vandal").await.unwrap();
        change(&mut stored);
        let StoredPartition { checkpoint, totals, .. } = stored;
        let commit = Commit { epoch: next, from, checkpoint, totals };
        self.store.commit(id, &commit).await.unwrap();
    }

    pub async fn audit(&self) -> Report {
        self.audit_by(self.archived_reader().await).await
    }

    /// With a log of its own.
    pub async fn audit_by(&self, log: Arc<dyn LogReader>) -> Report {
        let parts = AuditParts {
            log,
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
    if number % 23 == 22 {
        return NewRecord { key: person, value: b"no submission".to_vec() };
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
    NewRecord { key: person, value }
}

/// Moves one person from one whole percent to another, consistently.
pub fn falsify(totals: &mut BudgetTotals) {
    let [first, second, ..] = &mut totals.categories[..] else { panic!("too few categories") };
    let giver = first.people_by_percent.iter().rposition(|people| *people > 0).unwrap();
    let taker = second.people_by_percent.iter().position(|people| *people > 0).unwrap();
    assert!(giver > 0 && taker < 100);
    first.basis_points -= 100;
    first.people_by_percent[giver] -= 1;
    first.people_by_percent[giver - 1] += 1;
    second.basis_points += 100;
    second.people_by_percent[taker] -= 1;
    second.people_by_percent[taker + 1] += 1;
    assert!(totals.is_consistent());
}
