//! The contract suites on adapters that need no server, and properties of these adapters only.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "archive/truncated_log.rs"]
mod truncated_log;

mod contract;

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use contract::log::{Owner, PARTITIONS, RunningSource, append, as_read, record};
use contract::wait::{TEST_TIMEOUT, until};
use contract::{build, cache, definitions, idempotency, jobs, limits, log, store};
use runtime::limits::LocalCounters;
use rusqlite::Connection;
use schemas::job::{self, JobId, JobTransitionError};
use schemas::{
    Action, Allocation, BudgetId, Generation, LogNumber, LogRef, Offset, PartitionId, PersonKey,
    PersonKeyHasher, Receipt, RecordEncoder, Submission, SubmissionId,
};
use storage::cache::memory::MemoryCache;
use storage::control::sqlite::SqliteControlTopic;
use storage::control::{BudgetDefinitions, SecretRecord};
use storage::idempotency::memory::{MemoryIdempotency, Retention};
use storage::idempotency::{BeginOutcome, Idempotency, IdempotentSubmission};
use storage::jobs::{JobRows, JobStore, JobUpdateError, UnreadableJob, update_job};
use storage::log::sqlite::{SqliteDeadLetterJournal, SqliteLog, SqliteOpenError, SqliteReader};
use storage::log::{AppendError, DeadLetter, LogSource, LogWriter, NewRecord};
use storage::store::CasOutcome;
use storage::store::memory::MemoryStore;
use storage::store::sqlite::SqliteStore;
use uuid::Uuid;

fn first_log() -> LogRef {
    LogRef::first("submissions", build::count(PARTITIONS.into()))
}

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

mod sqlite_log {
    use super::*;

    async fn fixture() -> log::Fixture {
        let directory = directory();
        let path = directory.path().join("log.sqlite");
        let log = Arc::new(SqliteLog::open(&path, build::count(PARTITIONS.into())).unwrap());
        log::Fixture {
            log: first_log(),
            source: Mutex::new(Some(Box::new(log.source().unwrap()))),
            reader: Arc::new(SqliteReader::open(&path, build::count(PARTITIONS.into())).unwrap()),
            dead_letter_writer: Arc::clone(&log) as _,
            dead_letter_journal: Arc::new(SqliteDeadLetterJournal::open(&path).unwrap()),
            writer: log,
            read_dead_letters: Box::new(move || {
                let letters = read_dead_letters(&path);
                Box::pin(async { letters })
            }),
            _kept: Box::new(directory),
        }
    }

    pub fn read_dead_letters(path: &Path) -> Vec<DeadLetter> {
        let connection = Connection::open(path).unwrap();
        let mut select = connection.prepare("SELECT * FROM dead_letters").unwrap();
        let letters = select.query_map([], |row| {
            Ok(DeadLetter {
                source: Receipt {
                    log: LogNumber::FIRST,
                    partition: PartitionId(row.get(0)?),
                    offset: Offset(row.get::<_, i64>(1)? as u64),
                },
                reason: row.get(2)?,
                key: row.get(3)?,
                value: row.get(4)?,
            })
        });
        letters.unwrap().map(Result::unwrap).collect()
    }

    log::log_contract!(fixture());

    #[tokio::test]
    async fn acknowledged_records_survive_reopening_and_offsets_continue() {
        let directory = directory();
        let path = directory.path().join("a/new/folder/log.sqlite");
        let mut appended = Vec::new();
        let mut identities = Vec::new();
        for round in 0..3 {
            let log = SqliteLog::open(&path, build::count(1)).unwrap();
            identities.push(log.source().unwrap().identity());
            let records: Vec<_> = (0..50).map(|number| record(0, 50 * round + number)).collect();
            let offsets = append(&log, &records).await;
            assert!(offsets.into_iter().eq((50 * round..50 * (round + 1)).map(Offset)));
            appended.extend(records);
        }
        assert!(identities.iter().all(|identity| *identity == identities[0]));

        let log = SqliteLog::open(&path, build::count(1)).unwrap();
        let owner = Owner::from_start();
        let running = RunningSource::start(Box::new(log.source().unwrap()), &first_log(), &owner);
        let all = async || owner.read(0).len() == appended.len();
        until("everything is read", TEST_TIMEOUT, all).await;
        assert!(owner.read(0) == as_read(&appended, 0));
        running.stop().await.1.unwrap();
    }

    /// A submission of one person; without shares it is a withdrawal.
    fn submission(person: u8, id: u128, shares: &[u32], generated_id: bool) -> NewRecord {
        let action = match shares {
            [] => Action::Withdraw,
            shares => Action::Allocate(Allocation::new(shares).unwrap()),
        };
        let submission = Submission {
            budget: BudgetId::parse("taxes").unwrap(),
            person: PersonKey::from_bytes([person; 16]),
            id: SubmissionId(Uuid::from_u128(id)),
            accepted_at_ms: 1,
            action,
        };
        let mut encoder = RecordEncoder::default();
        let value = match generated_id {
            true => encoder.encode_with_generated_id(&submission),
            false => encoder.encode(&submission),
        };
        NewRecord { key: submission.person, value }
    }

    fn address(offset: u64) -> Receipt {
        Receipt { log: LogNumber::FIRST, partition: PartitionId(0), offset: Offset(offset) }
    }

    #[tokio::test]
    async fn a_submission_id_is_appended_once_also_after_reopening() {
        let directory = directory();
        let path = directory.path().join("log.sqlite");
        let first = submission(1, 1, &[10_000, 0], false);
        let log = SqliteLog::open(&path, build::count(1)).unwrap();
        assert_eq!(log.append_once_per_id(vec![first.clone()]).await, [Ok(address(0))]);
        drop(log);
        for _ in 0..2 {
            let log = SqliteLog::open(&path, build::count(1)).unwrap();
            let other_content = [
                submission(1, 1, &[0, 10_000], false),
                submission(2, 1, &[10_000, 0], false),
                submission(1, 1, &[], false),
            ];
            for other in other_content {
                let refused = log.append_once_per_id(vec![other]).await;
                assert_eq!(refused, [Err(AppendError::IdReused)]);
            }
            let repeated = log.append_once_per_id(vec![first.clone()]).await;
            assert_eq!(repeated, [Err(AppendError::Repeated(address(0)))]);
        }
    }

    #[tokio::test]
    async fn a_repetition_within_one_append_and_after_newer_submissions_is_not_appended() {
        let directory = directory();
        let log = SqliteLog::open(&directory.path().join("log"), build::count(1)).unwrap();
        let newer = |id| submission(1, id, &[id as u32, 10_000 - id as u32], false);
        let batch = vec![newer(1), newer(2), newer(1), newer(3)];
        let appended = log.append_once_per_id(batch).await;
        let repeated = Err(AppendError::Repeated(address(0)));
        assert_eq!(appended, [Ok(address(0)), Ok(address(1)), repeated, Ok(address(2))]);
        for id in 4..20 {
            log.append_once_per_id(vec![newer(id)]).await[0].clone().unwrap();
        }
        let repeated = log.append_once_per_id(vec![newer(2)]).await;
        assert_eq!(repeated, [Err(AppendError::Repeated(address(1)))]);
        // A generated id is unique, and needs no place in the index.
        let generated = || submission(1, 99, &[10_000, 0], true);
        for _ in 0..2 {
            log.append_once_per_id(vec![generated()]).await[0].clone().unwrap();
        }
        // A dead letter is replayed under its own submission id.
        log.append(vec![newer(2)]).await[0].clone().unwrap();
    }

    #[tokio::test]
    async fn submission_ids_that_an_earlier_release_has_appended_are_known() {
        let directory = directory();
        let path = directory.path().join("log.sqlite");
        let log = SqliteLog::open(&path, build::count(1)).unwrap();
        let all: Vec<_> = (0..10).map(|id| submission(1, id, &[5_000, 5_000], false)).collect();
        log.append(all.clone()).await;
        drop(log);
        // An earlier release appends records only, and knows no index.
        for sql in ["DROP TABLE submission_ids; DROP TABLE indexed_positions", ""] {
            let connection = Connection::open(&path).unwrap();
            connection.execute_batch(sql).unwrap();
            let insert = r#"INSERT INTO records (partition, "offset", key, value)
                SELECT 0, max("offset") + 1, ?1, ?2 FROM records"#;
            let added = submission(2, 100, &[1, 9_999], false);
            connection.execute(insert, (added.key.as_bytes(), &added.value)).unwrap();
            drop(connection);
            let log = SqliteLog::open(&path, build::count(1)).unwrap();
            for (id, record) in (0..).zip(&all) {
                let repeated = log.append_once_per_id(vec![record.clone()]).await;
                assert_eq!(repeated, [Err(AppendError::Repeated(address(id)))]);
            }
            let repeated = log.append_once_per_id(vec![added]).await;
            assert_eq!(repeated, [Err(AppendError::Repeated(address(10)))]);
        }
    }

    #[test]
    fn different_logs_have_different_identities() {
        let (one, two) = (directory(), directory());
        let identity = |directory: &tempfile::TempDir| {
            let path = directory.path().join("log.sqlite");
            SqliteLog::open(&path, build::count(1)).unwrap().source().unwrap().identity()
        };
        assert_ne!(identity(&one), identity(&two));
    }

    #[test]
    fn another_partition_count_is_rejected_with_the_stored_count() {
        let directory = directory();
        let path = directory.path().join("log.sqlite");
        drop(SqliteLog::open(&path, build::count(12)).unwrap());
        let refusal = SqliteLog::open(&path, build::count(13)).err().unwrap();
        assert!(matches!(refusal, SqliteOpenError::PartitionCount { stored: 12, wanted: 13, .. }));
        assert!(refusal.to_string().contains("configure 12"), "{refusal}");
        SqliteLog::open(&path, build::count(12)).unwrap();
    }

    #[test]
    fn a_log_in_use_is_rejected_until_it_is_closed() {
        let directory = directory();
        let path = directory.path().join("log.sqlite");
        let log = SqliteLog::open(&path, build::count(1)).unwrap();
        let source = log.source().unwrap();
        let in_use = || {
            matches!(SqliteLog::open(&path, build::count(1)), Err(SqliteOpenError::InUse { .. }))
        };
        assert!(in_use());
        drop(log);
        assert!(in_use());
        drop(source);
        SqliteLog::open(&path, build::count(1)).unwrap();
    }

    #[test]
    fn a_file_that_is_not_a_log_is_rejected_and_unchanged() {
        let directory = directory();
        let store = directory.path().join("store.sqlite");
        drop(SqliteStore::open(&store).unwrap());
        let text = directory.path().join("text");
        std::fs::write(&text, "This is not a database, and it is longer than a header.").unwrap();
        let foreign = SqliteLog::open(&store, build::count(1)).err().unwrap();
        assert!(matches!(foreign, SqliteOpenError::Foreign { .. }), "{foreign}");
        let unusable = SqliteLog::open(&text, build::count(1)).err().unwrap();
        assert!(matches!(unusable, SqliteOpenError::Unusable { .. }), "{unusable}");
        SqliteStore::open(&store).unwrap();
        assert!(std::fs::read_to_string(&text).unwrap().starts_with("This is not a database"));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_durable_record_is_delivered_within_milliseconds() {
        let fixture = fixture().await;
        let owner = Owner::from_start();
        let source = fixture.source.lock().unwrap().take().unwrap();
        let running = RunningSource::start(source, &first_log(), &owner);
        let mut delays = Vec::new();
        for number in 0..51 {
            append(&*fixture.writer, &[record(0, number)]).await;
            let durable = Instant::now();
            let come = async || owner.read(0).len() == number as usize + 1;
            until("the record is delivered", TEST_TIMEOUT, come).await;
            delays.push(durable.elapsed());
        }
        running.stop().await.1.unwrap();
        delays.sort();
        // A source that only polls would have a median delay of half its 50 ms interval.
        assert!(delays[delays.len() / 2] < Duration::from_millis(15), "{delays:?}");
    }
}

mod archived_log {
    use async_trait::async_trait;
    use schemas::Position;
    use storage::log::LogReader;
    use storage::log::archive::{ArchiveWriter, ArchivedReader, LogName};
    use tokio::sync::Mutex as AsyncMutex;
    use truncated_log::{TruncatedLog, TruncationPoint};

    use super::*;

    const TOPIC: &str = "submissions";

    /// Truncates a third of the log and archives two thirds at each read.
    struct TruncatedByThirds(AsyncMutex<ArchiveWriter>);

    #[async_trait]
    impl TruncationPoint for TruncatedByThirds {
        async fn low(&self, log: &dyn LogReader, of: PartitionId, high: Position) -> Position {
            let writer = self.0.lock().await;
            writer.extend_from_log(log, of, Position(high.0 * 2 / 3), |_| {}).await.unwrap();
            Position(high.0 / 3)
        }
    }

    async fn fixture() -> log::Fixture {
        let directory = directory();
        let (path, folder) = (directory.path().join("log.db"), directory.path().join("archive"));
        let log = Arc::new(SqliteLog::open(&path, build::count(PARTITIONS.into())).unwrap());
        let reader = SqliteReader::open(&path, build::count(PARTITIONS.into())).unwrap();
        let writer = ArchiveWriter::open(&folder, LogName::of(&reader, TOPIC)).unwrap();
        let truncated_by_thirds =
            TruncatedByThirds(AsyncMutex::new(writer.with_segment_bytes(10_000)));
        let truncated_log = Arc::new(TruncatedLog::new(Arc::new(reader), truncated_by_thirds));
        log::Fixture {
            log: first_log(),
            source: Mutex::new(Some(Box::new(log.source().unwrap()))),
            reader: Arc::new(ArchivedReader::open(&folder, TOPIC, truncated_log).await),
            dead_letter_writer: Arc::clone(&log) as _,
            dead_letter_journal: Arc::new(SqliteDeadLetterJournal::open(&path).unwrap()),
            writer: log,
            read_dead_letters: Box::new(move || {
                let letters = sqlite_log::read_dead_letters(&path);
                Box::pin(async { letters })
            }),
            _kept: Box::new(directory),
        }
    }

    log::log_contract!(fixture());
}

mod sqlite_store {
    use super::*;

    async fn fixture() -> store::Fixture {
        let directory = directory();
        let store = SqliteStore::open(&directory.path().join("store.sqlite")).unwrap();
        store::Fixture {
            store: Arc::new(store),
            generation: Generation::FIRST,
            _kept: Box::new(directory),
        }
    }

    async fn jobs_fixture() -> jobs::Fixture {
        let directory = directory();
        let store = SqliteStore::open(&directory.path().join("store.sqlite")).unwrap();
        jobs::Fixture { jobs: Arc::new(store), _kept: Box::new(directory) }
    }

    store::store_contract!(fixture(), fixture());
    jobs::jobs_contract!(jobs_fixture());

    #[tokio::test]
    async fn a_job_of_a_newer_release_is_reported_as_unreadable_and_can_be_deleted() {
        let directory = directory();
        let path = directory.path().join("store.sqlite");
        let jobs = SqliteStore::open(&path).unwrap();
        let id = JobId::from_name("otto", "a newer kind");
        let insert = "INSERT INTO jobs (id, revision, job) VALUES (?1, 7, ?2)";
        let row = (id.0.into_bytes(), r#"{"kind":"dance"}"#);
        Connection::open(&path).unwrap().execute(insert, row).unwrap();
        let unreadable = vec![UnreadableJob { id, revision: 7 }];
        assert_eq!(jobs.job_rows().await, Ok(JobRows { jobs: Vec::new(), unreadable }));
        assert_eq!(jobs.delete_job(id, 6).await, Ok(CasOutcome::Refused));
        assert_eq!(jobs.delete_job(id, 7).await, Ok(CasOutcome::Applied));
        assert_eq!(jobs.job_rows().await, Ok(JobRows::default()));
    }

    #[tokio::test]
    async fn a_job_whose_text_is_none_is_unreadable_and_the_others_are_listed() {
        let directory = directory();
        let path = directory.path().join("store.sqlite");
        let jobs = SqliteStore::open(&path).unwrap();
        let insert = "INSERT INTO jobs (id, revision, job) VALUES (?1, 7, CAST(?2 AS TEXT))";
        let connection = Connection::open(&path).unwrap();
        let ids = ["one", "two"].map(|name| JobId::from_name("otto", name));
        for (id, text) in ids.iter().zip([&b"\xff\xfe"[..], b"{}"]) {
            connection.execute(insert, (id.0.into_bytes(), text)).unwrap();
        }
        let rows = jobs.job_rows().await.unwrap();
        let mut unreadable: Vec<_> = rows.unreadable.iter().map(|job| job.id).collect();
        unreadable.sort();
        let mut expected = ids.to_vec();
        expected.sort();
        assert_eq!(unreadable, expected);
    }

    #[tokio::test]
    async fn a_job_that_a_newer_release_extended_is_shown_and_not_changed() {
        const FUTURE: &str = include_str!("../../schemas/tests/golden/future_job.json");
        let directory = directory();
        let path = directory.path().join("store.sqlite");
        let jobs = SqliteStore::open(&path).unwrap();
        let id: JobId = "01935b1e-0000-7000-8000-000000000001".parse().unwrap();
        let connection = Connection::open(&path).unwrap();
        let insert = "INSERT INTO jobs (id, revision, job) VALUES (?1, 3, ?2)";
        connection.execute(insert, (id.0.into_bytes(), FUTURE)).unwrap();
        assert_eq!(jobs.jobs().await.unwrap()[0].not_understood, ["/max_records_per_second"]);
        let changed = update_job(&jobs, id, |current| job::cancel(current, 9)).await;
        assert_eq!(changed, Err(JobUpdateError::Refused(JobTransitionError::NotUnderstood)));
        let kept = connection.query_row("SELECT job FROM jobs", [], |row| row.get::<_, String>(0));
        assert_eq!(kept.as_deref(), Ok(FUTURE));
    }
}

mod memory_store {
    use super::*;

    async fn fixture() -> store::Fixture {
        store::Fixture {
            store: Arc::new(MemoryStore::new()),
            generation: Generation::FIRST,
            _kept: Box::new(()),
        }
    }

    async fn jobs_fixture() -> jobs::Fixture {
        jobs::Fixture { jobs: Arc::new(MemoryStore::new()), _kept: Box::new(()) }
    }

    store::store_contract!(fixture(), fixture());
    jobs::jobs_contract!(jobs_fixture());
}

mod memory_cache {
    use super::*;

    async fn fixture() -> cache::Fixture {
        cache::Fixture {
            cache: Arc::new(MemoryCache::new()),
            // Only a restart loses data.
            lose: Box::new(|_| Box::pin(async { Arc::new(MemoryCache::new()) as _ })),
        }
    }

    cache::cache_contract!(fixture());
}

mod sqlite_control_topic {
    use super::*;

    async fn fixture() -> definitions::Fixture {
        let directory = directory();
        let path = directory.path().join("definitions.sqlite");
        let ours = Arc::new(SqliteControlTopic::open(&path).unwrap());
        definitions::Fixture {
            follower: Arc::clone(&ours) as _,
            ours,
            rival: Arc::new(SqliteControlTopic::open(&path).unwrap()),
            _kept: Box::new(directory),
        }
    }

    definitions::definitions_contract!(fixture());

    #[tokio::test]
    async fn definitions_survive_reopening() {
        let directory = directory();
        let path = directory.path().join("definitions.sqlite");
        let wanted = build::budget(&build::new_budget_id());
        let define = |current: Option<&_>| storage::control::define(current, &wanted);
        let opened = SqliteControlTopic::open(&path).unwrap();
        let defined = opened.change(&wanted.id, &define).await.unwrap();
        drop(opened);
        let reopened = SqliteControlTopic::open(&path).unwrap();
        assert_eq!(reopened.catalog().get(wanted.id.as_str()), Some(&defined));
    }

    #[tokio::test]
    async fn a_recorded_secret_survives_reopening() {
        let directory = directory();
        let path = directory.path().join("definitions.sqlite");
        let fingerprint = |secret: u8| PersonKeyHasher::new(&[secret; 32]).unwrap().fingerprint();
        let opened = SqliteControlTopic::open(&path).unwrap();
        assert_eq!(*opened.subscribe_secret().borrow(), None);
        assert_eq!(opened.record_secret(&fingerprint(1)).await, Ok(fingerprint(1)));
        drop(opened);
        let reopened = SqliteControlTopic::open(&path).unwrap();
        assert_eq!(*reopened.subscribe_secret().borrow(), Some(fingerprint(1)));
        assert_eq!(reopened.record_secret(&fingerprint(2)).await, Ok(fingerprint(1)));
    }
}

mod memory_limits {
    use super::*;

    async fn fixture() -> limits::Fixture {
        Arc::new(LocalCounters::default())
    }

    limits::limits_contract!(fixture());
}

mod memory_idempotency {
    use super::*;

    async fn fixture() -> idempotency::Fixture {
        Arc::new(MemoryIdempotency::new(Retention::default()))
    }

    idempotency::idempotency_contract!(fixture());

    fn new_attempt() -> IdempotentSubmission {
        let submission = SubmissionId(Uuid::new_v4());
        IdempotentSubmission { budget: build::new_budget_id(), submission, digest: 1 }
    }

    #[tokio::test]
    async fn an_unfinished_attempt_is_forgotten_before_a_receipt() {
        let in_flight = Duration::from_millis(50);
        let memory = MemoryIdempotency::new(Retention { in_flight, ..Retention::default() });
        let (lost, accepted) = (new_attempt(), new_attempt());
        memory.begin(&[lost.clone(), accepted.clone()]).await;
        let receipt =
            Receipt { log: LogNumber::FIRST, partition: PartitionId(0), offset: Offset(1) };
        memory.finish(&[(accepted.clone(), Some(receipt))]).await;
        let again =
            async || memory.begin(std::slice::from_ref(&lost)).await == [BeginOutcome::First];
        until("the lost attempt may be made again", TEST_TIMEOUT, again).await;
        assert_eq!(memory.begin(&[accepted]).await, [BeginOutcome::Repeat(receipt)]);
    }

    #[tokio::test]
    async fn a_new_attempt_is_remembered_when_the_store_is_full() {
        let memory = MemoryIdempotency::new(Retention { attempts: 100, ..Retention::default() });
        for _ in 0..1_000 {
            let attempt = new_attempt();
            let begun = memory.begin(&[attempt.clone(), attempt]).await;
            assert_eq!(begun, [BeginOutcome::First, BeginOutcome::InFlight]);
        }
    }
}
