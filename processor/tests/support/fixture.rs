//! A processor on embedded and in-memory adapters, with generated submissions. Not every test uses all of it.
#![allow(dead_code)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use engine::partition::{DeadLetterThresholds, PartitionLimits};
use operations::archive::ArchiveDeps;
use operations::audit::{AuditDeps, AuditReport, audit};
use operations::progress::Progress;
use processor::ProcessorDeps;
use schemas::{
    Action, Allocation, AnnulmentAction, AnnulmentId, AnnulmentStamp, Budget, BudgetId,
    BudgetTotals, Category, CategoryId, Generation, IdentityRule, LogRef, PartitionCount,
    PartitionId, PersonKey, Position, PublishStep, RecordAddress, RecordEncoder, RecordStamp,
    ResultsVisibility, Submission, SubmissionId, encode_record, partition_for,
};
use storage::cache::Cache;
use storage::cache::memory::MemoryCache;
use storage::control::ControlTopic;
use storage::control::sqlite::SqliteControlTopic;
use storage::exports::Exports;
use storage::log::archive::ArchivedReader;
use storage::log::sqlite::{SqliteDeadLetterJournal, SqliteLog, SqliteReader};
use storage::log::{LogReader, LogWriter, NewRecord};
use storage::signals::SqliteSignalReader;
use storage::store::memory::MemoryStore;
use storage::store::{Checkpoints, Commit, Epoch, Generations, PartitionRef, StoredPartition};
use tempfile::TempDir;
use tokio::time::Instant;

use crate::running_processor::RunningProcessor;
use crate::single_log::SingleLogOpener;

pub const PARTITIONS: u32 = 4;
pub const CATEGORIES: [&str; 2] = ["first", "second"];
pub const BUDGETS: [&str; 2] = ["roads", "schools"];
const PEOPLE: u64 = 60;
const TIMEOUT: Duration = Duration::from_secs(30);
pub const TOPIC: &str = "submissions";
const LIMITS: PartitionLimits = PartitionLimits {
    commit_interval: Duration::from_millis(2),
    catch_up_commit_interval: Duration::from_millis(2),
    catch_up_lag: 1_000_000,
    max_uncommitted: 1_000_000,
    rows_interval: Duration::from_millis(5),
    max_replay: 1_000_000,
    dead_letters: DeadLetterThresholds { run: 1_000, percent: 20 },
};

/// A processor and everything it depends on.
pub struct Fixture {
    pub store: Arc<MemoryStore>,
    pub cache: Arc<dyn Cache>,
    pub apis: Vec<String>,
    pub limits: PartitionLimits,
    pub dir: TempDir,
    /// Directory of the log's archive.
    pub archive: Option<PathBuf>,
    /// Used by jobs to append to the log.
    pub writer: Arc<dyn LogWriter>,
    log: Arc<SqliteLog>,
    processor: Option<RunningProcessor>,
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

/// Returns a budget with the categories of the generated submissions.
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
        results: ResultsVisibility::Live,
        minimum_people: 1,
        max_people: None,
        publish_step: 1,
        identity: IdentityRule::Required,
        presentation: Default::default(),
        revision: 1,
        frozen: true,
        closing: None,
        person_salt: Default::default(),
    })
}

impl Fixture {
    /// Starts a processor on an empty log.
    pub async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let log = Arc::new(SqliteLog::open(&dir.path().join("log.db"), count()).unwrap());
        let store = Arc::new(MemoryStore::new());
        let cache: Arc<dyn Cache> = Arc::new(MemoryCache::new());
        let (apis, limits, archive, appended) = (Vec::new(), LIMITS, None, AtomicU64::new(0));
        let (processor, writer) = (None, Arc::clone(&log) as _);
        let mut fixture =
            Self { store, cache, apis, limits, dir, archive, writer, log, processor, appended };
        fixture.start_processor().await;
        fixture
    }

    /// Starts a processor, appends 3,000 records and waits until they are processed.
    pub async fn settled() -> Self {
        let fixture = Self::start().await;
        fixture.append(3_000).await;
        fixture.wait_until_settled().await;
        fixture
    }

    /// Starts a processor on the current state.
    pub async fn start_processor(&mut self) {
        let deps = ProcessorDeps {
            source: Box::new(self.log.source().unwrap()),
            logs: Arc::new(SingleLogOpener {
                with_archive: self.archived_reader().await,
                without_archive: Arc::new(self.reader()),
            }),
            first_log: LogRef::first(TOPIC, count()),
            dead_letters: Arc::clone(&self.log) as _,
            dead_letter_journal: Arc::new(self.dead_letter_journal()),
            writer: Arc::clone(&self.writer),
            store: Arc::clone(&self.store) as _,
            jobs: Arc::clone(&self.store) as _,
            cache: Arc::clone(&self.cache),
            control: ControlTopic::new(
                SqliteControlTopic::open(&self.dir.path().join("d.db")).unwrap(),
            ),
            archive_dir: self.archive.clone(),
            exports: self.exports(),
            signals: Arc::new(SqliteSignalReader::new(&self.dir.path().join("signals.db"))),
        };
        self.processor = Some(RunningProcessor::start(deps, self.limits).await);
    }

    /// Returns the dependencies of an archive run to `dir`.
    pub fn archive_deps(&self, dir: &Path) -> ArchiveDeps {
        ArchiveDeps {
            log: Arc::new(self.reader()),
            topic: TOPIC.into(),
            store: Arc::clone(&self.store) as _,
            dir: dir.to_owned(),
        }
    }

    /// Returns the export directory.
    pub fn exports(&self) -> Exports {
        Exports::new(self.dir.path().join("exports"))
    }

    /// Opens the dead letter journal.
    pub fn dead_letter_journal(&self) -> SqliteDeadLetterJournal {
        SqliteDeadLetterJournal::open(&self.dir.path().join("log.db")).unwrap()
    }

    pub fn reader(&self) -> SqliteReader {
        SqliteReader::open(&self.dir.path().join("log.db"), count()).unwrap()
    }

    /// Opens the log, preceded by its archive if there is one.
    pub async fn archived_reader(&self) -> Arc<dyn LogReader> {
        let log: Arc<dyn LogReader> = Arc::new(self.reader());
        match &self.archive {
            Some(dir) => Arc::new(ArchivedReader::open(dir, TOPIC, log).await),
            None => log,
        }
    }

    /// Returns the id of a partition in the active generation.
    pub async fn id(&self, partition: u32) -> PartitionRef {
        let registry = self.store.registry().await.unwrap().unwrap();
        let generation = registry.active.generation;
        PartitionRef { generation, partition: PartitionId(partition) }
    }

    /// Appends generated records: new and repeated submissions, withdrawals, annulments, and garbage.
    pub async fn append(&self, records: u64) {
        let first = self.appended.fetch_add(records, Ordering::Relaxed);
        let outcomes = self.log.append((first..first + records).map(record).collect()).await;
        outcomes.into_iter().collect::<Result<Vec<_>, _>>().unwrap();
    }

    /// Appends as [`Fixture::append`], without annulments. Only to an empty log.
    pub async fn append_without_annulments(&self, records: u64) {
        let submissions = (0..).filter(|number| !is_annulment(*number)).take(records as usize);
        let outcomes = self.log.append(submissions.map(record).collect()).await;
        outcomes.into_iter().collect::<Result<Vec<_>, _>>().unwrap();
        self.note_appended(records);
    }

    /// Notes records that a job has appended.
    pub fn note_appended(&self, records: u64) {
        self.appended.fetch_add(records, Ordering::Relaxed);
    }

    /// Appends a valid submission of a new person to the wrong partition.
    pub async fn append_misplaced(&self) -> RecordAddress {
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

    /// Waits until everything is committed, all person rows are written, and totals are published.
    pub async fn wait_until_settled(&self) {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let mut settled = true;
            let mut positions = 0;
            for partition in 0..PARTITIONS {
                let stored = self.store.read_partition(self.id(partition).await).await.unwrap();
                let Some(StoredPartition { checkpoint, .. }) = stored else {
                    settled = false;
                    continue;
                };
                settled &= checkpoint.position == checkpoint.rows_position;
                positions += checkpoint.position.0;
            }
            if settled
                && positions == self.appended.load(Ordering::Relaxed)
                && self.is_published().await
            {
                return;
            }
            assert!(Instant::now() < deadline, "not everything is committed and published");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    pub async fn wait_until_committed_beyond(&self, records: u64) {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let mut positions = 0;
            for partition in 0..PARTITIONS {
                positions += self.stored(partition).await.checkpoint.position.0;
            }
            if positions > records {
                return;
            }
            assert!(Instant::now() < deadline, "too few records are committed");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Whether the cache holds the stored totals.
    async fn is_published(&self) -> bool {
        let term = self.store.registry().await.unwrap().unwrap().term();
        let budgets = BUDGETS.map(budget);
        let cached = self.cache.read(&budgets).await.unwrap();
        for (budget, cached) in budgets.iter().zip(cached) {
            let stored = self.positions(budget).await;
            if cached.is_none_or(|cached| (cached.term, cached.positions) != (term, stored)) {
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

    /// Reads a partition of the active generation.
    pub async fn stored(&self, partition: u32) -> StoredPartition {
        self.store.read_partition(self.id(partition).await).await.unwrap().unwrap()
    }

    /// Stops the processor, so that it does not overwrite later changes to the store.
    pub async fn stop_processor(&mut self) {
        self.processor.take().unwrap().stop().await;
    }

    /// Commits a changed state of a partition under a new epoch.
    pub async fn overwrite(&self, partition: u32, change: impl FnOnce(&mut StoredPartition)) {
        let mut stored = self.stored(partition).await;
        let (from, epoch) = (stored.checkpoint.position, stored.epoch);
        let (next, id) = (Epoch(epoch.0 + 1), self.id(partition).await);
        self.store.claim(id, Some(epoch), next, "another owner").await.unwrap();
        change(&mut stored);
        let StoredPartition { checkpoint, totals, .. } = stored;
        let commit = Commit { epoch: next, from, checkpoint, totals };
        self.store.commit(id, &commit).await.unwrap();
    }

    /// Runs an audit, which has to succeed.
    pub async fn audit(&self) -> AuditReport {
        self.audit_with_log(self.archived_reader().await).await
    }

    /// Runs an audit against the given log reader.
    pub async fn audit_with_log(&self, log: Arc<dyn LogReader>) -> AuditReport {
        let deps = AuditDeps {
            log,
            topic: TOPIC.into(),
            store: Arc::clone(&self.store) as _,
            cache: Some(Arc::clone(&self.cache)),
            apis: self.apis.clone(),
        };
        audit(&deps, &Progress::default()).await.unwrap()
    }
}

/// Returns what an audit found, one line each.
pub fn report_lines(report: &AuditReport) -> Vec<String> {
    let differences = report.differences.iter().map(ToString::to_string);
    differences.chain(report.unchecked.iter().cloned()).collect()
}

/// Returns the key of a person of the generated records: even ones submit to the first budget.
pub fn person(who: u64) -> PersonKey {
    let key = u128::from(who + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    PersonKey::from_bytes(key.to_le_bytes())
}

/// Whether the record with the given number annuls or restores a person.
fn is_annulment(number: u64) -> bool {
    number % 29 == 28
}

/// Generates the record with the given number.
fn record(number: u64) -> NewRecord {
    let who = (number * 7_919) % PEOPLE;
    let person = person(who);
    if number % 23 == 22 {
        return NewRecord { key: person, value: b"no submission".to_vec() };
    }
    let accepted_at_ms = 1_700_000_000_000 + number * 3_600_000;
    // The results of the second budget move in steps.
    let publish_step = PublishStep::nearest(if who.is_multiple_of(2) { 1 } else { 5 });
    let budget = budget(BUDGETS[(who % 2) as usize]);
    if is_annulment(number) {
        let id = AnnulmentId(uuid::Uuid::from_u128(u128::from(number)));
        let action = if number.is_multiple_of(5) {
            AnnulmentAction::Annul
        } else {
            AnnulmentAction::Restore
        };
        let stamp = AnnulmentStamp { appended_at_ms: accepted_at_ms, publish_step };
        let value = RecordEncoder::default().encode_annulment(&budget, id, action, stamp);
        return NewRecord { key: person, value };
    }
    let share = (number * 37 % 101 * 100) as u32;
    let shares = Allocation::new(&[share, 10_000 - share]).unwrap();
    // Some records repeat the person's latest submission id.
    let id = if number % 17 == 16 { number.saturating_sub(PEOPLE) } else { number };
    let submission = Submission {
        budget,
        person,
        id: SubmissionId(uuid::Uuid::from_u128(u128::from(id))),
        // An hour later each: histories span days.
        accepted_at_ms,
        action: if number % 13 == 12 { Action::Withdraw } else { Action::Allocate(shares) },
    };
    let stamp = RecordStamp { publish_step, ..RecordStamp::default() };
    let value = RecordEncoder::default().encode_stamped(&submission, stamp);
    NewRecord { key: person, value }
}

/// Moves one person from one whole percent to another, consistently.
pub fn move_one_person(totals: &mut BudgetTotals) {
    let [first, second, ..] = &mut totals.categories[..] else { panic!("too few categories") };
    let from = first.people_by_percent.iter().rposition(|people| *people > 0).unwrap();
    let to = second.people_by_percent.iter().position(|people| *people > 0).unwrap();
    assert!(from > 0 && to < 100);
    first.basis_points -= 100;
    first.people_by_percent[from] -= 1;
    first.people_by_percent[from - 1] += 1;
    second.basis_points += 100;
    second.people_by_percent[to] -= 1;
    second.people_by_percent[to + 1] += 1;
    assert!(totals.is_consistent());
}
