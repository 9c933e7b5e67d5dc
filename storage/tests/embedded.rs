//! The contract suites on adapters that need no server, and properties of these adapters only.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "archive/truncated_log.rs"]
mod truncated_log;

mod contract;
#[path = "embedded/sqlite_log.rs"]
mod sqlite_log;

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use contract::log::{Owner, PARTITIONS, RunningSource, append, as_read, record};
use contract::wait::{TEST_TIMEOUT, until};
use contract::{build, cache, definitions, idempotency, jobs, limits, log, one_time_codes, store};
use parking_lot::Mutex;
use runtime::limits::LocalCounters;
use rusqlite::Connection;
use schemas::job::{self, JobId, JobTransitionError};
use schemas::{
    Action, Allocation, AnnulmentAction, AnnulmentId, AnnulmentStamp, BudgetId, Generation,
    LogNumber, LogRef, Marker, MarkerKind, Offset, PartitionId, PersonKey, PersonSecret, Position,
    PublishStep, RecordAddress, RecordEncoder, Submission, SubmissionId,
};
use storage::cache::memory::MemoryCache;
use storage::control::sqlite::SqliteControlTopic;
use storage::control::{BudgetDefinitions, SecretRecord};
use storage::idempotency::memory::{MemoryIdempotency, Retention};
use storage::idempotency::{AttemptOutcome, BeginOutcome, Idempotency, IdempotentSubmission};
use storage::jobs::{JobRows, JobStore, JobUpdateError, UnreadableJob, update_job};
use storage::log::archive::{ArchiveWriter, LogName};
use storage::log::sqlite::{
    SqliteDeadLetterJournal, SqliteLog, SqliteLogTrimmer, SqliteOpenError, SqliteReader,
};
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

mod archived_log {
    use async_trait::async_trait;
    use storage::log::LogReader;
    use storage::log::archive::ArchivedReader;
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
        let fingerprint = |secret: u8| PersonSecret::new(&[secret; 32]).unwrap().fingerprint();
        let opened = SqliteControlTopic::open(&path).unwrap();
        assert_eq!(*opened.subscribe_secret().borrow(), None);
        assert_eq!(opened.record_secret(&fingerprint(1)).await, Ok(fingerprint(1)));
        drop(opened);
        let reopened = SqliteControlTopic::open(&path).unwrap();
        assert_eq!(*reopened.subscribe_secret().borrow(), Some(fingerprint(1)));
        assert_eq!(reopened.record_secret(&fingerprint(2)).await, Ok(fingerprint(1)));
    }
}

mod memory_one_time_codes {
    use schemas::{CODE_LIFETIME, CodeHolder};
    use storage::one_time_codes::IssueOutcome;
    use storage::one_time_codes::memory::MemoryOneTimeCodes;

    use super::*;

    async fn fixture() -> one_time_codes::Fixture {
        Arc::new(MemoryOneTimeCodes::default())
    }

    one_time_codes::one_time_codes_contract!(fixture());

    #[tokio::test(start_paused = true)]
    async fn a_code_expires() {
        let codes = fixture().await;
        let holder = one_time_codes::new_holder();
        let code = one_time_codes::issue(&codes, &holder).await;
        tokio::time::advance(CODE_LIFETIME - Duration::from_secs(1)).await;
        assert_eq!(codes.redeem(&holder, &one_time_codes::new_hash(), None).await, Ok(false));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(codes.redeem(&holder, &code, None).await, Ok(false));
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_store_evicts_the_code_that_expires_first() {
        let codes: one_time_codes::Fixture = Arc::new(MemoryOneTimeCodes::new(2));
        let issue = async |holder: &CodeHolder| {
            tokio::time::advance(Duration::from_secs(1)).await;
            one_time_codes::issue(&codes, holder).await
        };
        let (first, second, third) = (
            one_time_codes::new_holder(),
            one_time_codes::new_holder(),
            one_time_codes::new_holder(),
        );
        issue(&first).await;
        let evicted = issue(&second).await;
        // A code that is there is replaced, and evicts none.
        let kept = issue(&first).await;
        let new = issue(&third).await;
        assert_eq!(codes.redeem(&second, &evicted, None).await, Ok(false));
        assert_eq!(codes.redeem(&first, &kept, None).await, Ok(true));
        // A code that is used up leaves its place.
        let newer = issue(&second).await;
        for (holder, code) in [(third, new), (second, newer)] {
            assert_eq!(codes.redeem(&holder, &code, None).await, Ok(true));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_throttled_request_evicts_nothing() {
        let codes: one_time_codes::Fixture = Arc::new(MemoryOneTimeCodes::new(1));
        let (flooded, other) = (one_time_codes::new_holder(), one_time_codes::new_holder());
        for _ in 0..3 {
            one_time_codes::issue(&codes, &flooded).await;
        }
        let code = one_time_codes::issue(&codes, &other).await;
        let throttled = codes.issue(&flooded, &one_time_codes::new_hash()).await;
        assert_eq!(throttled, Ok(IssueOutcome::Throttled));
        assert_eq!(codes.redeem(&other, &code, None).await, Ok(true));
    }

    #[tokio::test(start_paused = true)]
    async fn a_mailbox_gets_at_most_three_mails_in_ten_minutes_and_ten_in_a_day() {
        let codes = fixture().await;
        let mailbox = one_time_codes::new_hash();
        let mut sent = Vec::new();
        for minute in 0..24 * 60 {
            let holder = CodeHolder { slot: one_time_codes::new_hash(), mailbox };
            let issued = codes.issue(&holder, &one_time_codes::new_hash()).await;
            if issued == Ok(IssueOutcome::Issued) {
                sent.push(minute);
            }
            tokio::time::advance(Duration::from_secs(60)).await;
        }
        assert_eq!(sent.len(), 10, "{sent:?}");
        assert!(sent.windows(4).all(|four| four[3] - four[0] >= 10), "{sent:?}");
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
        IdempotentSubmission {
            budget: build::new_budget_id(),
            person: build::person(1, 0),
            submission: SubmissionId(Uuid::new_v4()),
            digest: 1,
        }
    }

    async fn begin(
        memory: &MemoryIdempotency,
        attempts: &[IdempotentSubmission],
    ) -> Vec<BeginOutcome> {
        memory.begin(attempts, Duration::ZERO).await
    }

    #[tokio::test]
    async fn an_unfinished_attempt_is_forgotten_before_a_receipt() {
        let in_flight = Duration::from_millis(50);
        let memory = MemoryIdempotency::new(Retention { in_flight, ..Retention::default() });
        let (lost, accepted) = (new_attempt(), new_attempt());
        begin(&memory, &[lost.clone(), accepted.clone()]).await;
        let receipt =
            RecordAddress { log: LogNumber::FIRST, partition: PartitionId(0), offset: Offset(1) };
        memory.finish(&[(accepted.clone(), AttemptOutcome::Accepted(receipt))]).await;
        let again =
            async || begin(&memory, std::slice::from_ref(&lost)).await == [BeginOutcome::First];
        until("the lost attempt may be made again", TEST_TIMEOUT, again).await;
        assert_eq!(begin(&memory, &[accepted]).await, [BeginOutcome::Repeat(receipt)]);
    }

    #[tokio::test]
    async fn an_attempt_is_in_flight_as_long_as_its_own_steps_may_take() {
        let in_flight = Duration::from_millis(1);
        let memory = MemoryIdempotency::new(Retention { in_flight, ..Retention::default() });
        let (short, long) = (new_attempt(), new_attempt());
        memory.begin(std::slice::from_ref(&long), Duration::from_secs(3_600)).await;
        begin(&memory, std::slice::from_ref(&short)).await;
        let again =
            async || begin(&memory, std::slice::from_ref(&short)).await == [BeginOutcome::First];
        until("the short attempt may be made again", TEST_TIMEOUT, again).await;
        assert_eq!(begin(&memory, &[long]).await, [BeginOutcome::InFlight]);
    }

    #[tokio::test]
    async fn content_that_may_be_in_the_log_is_remembered_as_long_as_a_receipt() {
        let in_flight = Duration::from_millis(1);
        let memory = MemoryIdempotency::new(Retention { in_flight, ..Retention::default() });
        let (lost, unknown) = (new_attempt(), new_attempt());
        let changed = IdempotentSubmission { digest: 2, ..unknown.clone() };
        begin(&memory, &[lost.clone(), unknown.clone()]).await;
        memory.finish(&[(unknown.clone(), AttemptOutcome::Unknown)]).await;
        let again =
            async || begin(&memory, std::slice::from_ref(&lost)).await == [BeginOutcome::First];
        until("the mark in flight expires", TEST_TIMEOUT, again).await;
        let expected = [BeginOutcome::Reused, BeginOutcome::First];
        assert_eq!(begin(&memory, &[changed, unknown]).await, expected);
    }

    #[tokio::test]
    async fn a_new_attempt_is_remembered_when_the_store_is_full() {
        let memory = MemoryIdempotency::new(Retention { attempts: 100, ..Retention::default() });
        for _ in 0..1_000 {
            let attempt = new_attempt();
            let begun = begin(&memory, &[attempt.clone(), attempt]).await;
            assert_eq!(begun, [BeginOutcome::First, BeginOutcome::InFlight]);
        }
    }
}
