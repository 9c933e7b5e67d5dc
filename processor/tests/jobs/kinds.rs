//! Each kind of job, executed by a whole processor.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use operations::archive::check_archive;
use operations::progress::Progress;
use schemas::job::{self, ExportFormat, Job, JobId, JobKind, JobState, NewJob, Priority, Verdict};
use schemas::{Budget, Generation, Offset, RecordAddress};
use sha2::{Digest, Sha256};
use storage::cache::memory::MemoryCache;
use storage::control::sqlite::SqliteControlTopic;
use storage::control::{BudgetDefinitions, define_if_absent};
use storage::exports::Audience;
use storage::jobs::{JobStore, submit, update_job};
use storage::log::dead_letters::{DeadLetterIndex, DeadLetterState};
use storage::log::{AppendError, LogReader, LogWriter, NewRecord};
use storage::store::{Generations, StoredPartition};
use tokio::time::{Instant, sleep};

use crate::fixture::{BUDGETS, Fixture, PARTITIONS, TOPIC, budget, definition};

async fn settled() -> Fixture {
    let fixture = Fixture::start().await;
    fixture.append(2_000).await;
    fixture.wait_until_settled().await;
    fixture
}

/// Submits a job.
pub async fn submit_job(fixture: &Fixture, kind: JobKind) -> JobId {
    let id = JobId::new(1, uuid::Uuid::new_v4());
    let (priority, requested_by) = (Priority::Normal, "an operator".into());
    let new = NewJob { id, kind, priority, requested_by };
    submit(fixture.store.as_ref(), new, 1).await.unwrap();
    id
}

/// Submits a job and waits until it has ended.
async fn run_to_end(fixture: &Fixture, kind: JobKind) -> JobState {
    let id = submit_job(fixture, kind).await;
    wait_until(fixture, id, Job::is_ended).await.state
}

/// Waits until a job satisfies a condition.
pub async fn wait_until(fixture: &Fixture, id: JobId, condition: impl Fn(&Job) -> bool) -> Job {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        let job = fixture.store.job(id).await.unwrap().unwrap();
        if condition(&job) {
            return job;
        }
        assert!(Instant::now() < deadline, "{job:?}");
        sleep(Duration::from_millis(10)).await;
    }
}

/// Runs a job that must succeed, and returns its verdict and result.
pub async fn run(fixture: &Fixture, kind: JobKind) -> (Verdict, String) {
    match run_to_end(fixture, kind).await {
        JobState::Succeeded { verdict, result, .. } => (verdict, result.to_string()),
        other => panic!("{other:?}"),
    }
}

/// Runs a job that must end dead, and returns the reason.
async fn run_until_dead(fixture: &Fixture, kind: JobKind) -> String {
    match run_to_end(fixture, kind).await {
        JobState::Dead { reason, .. } => reason.to_string(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_job_makes_a_new_generation_active() {
    let mut fixture = settled().await;
    let (verdict, result) = run(&fixture, JobKind::Rebuild { dry_run: false }).await;
    assert_eq!(verdict, Verdict::Clean, "{result}");
    assert_eq!(result, "generation 2 answers now; compared with 1: 2000 records, 0 differences");
    assert_eq!(fixture.store.registry().await.unwrap().unwrap().active.generation, Generation(2));
    fixture.stop_processor().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audit_job_names_the_differences_in_its_result() {
    let mut fixture = settled().await;
    let (verdict, result) = run(&fixture, JobKind::Audit).await;
    assert_eq!(
        (verdict, result.as_str()),
        (Verdict::Clean, "2000 records, 2 budgets: 0 differences, 0 not compared")
    );
    fixture.stop_processor().await;
    // The sum of the tally is unchanged, so that only an audit detects it.
    let forge = |stored: &mut StoredPartition| {
        stored.checkpoint.tally.applied -= 1;
        stored.checkpoint.tally.duplicates += 1;
    };
    fixture.overwrite(1, forge).await;
    fixture.start_processor().await;
    let (verdict, result) = run(&fixture, JobKind::Audit).await;
    assert_eq!(verdict, Verdict::Different, "{result}");
    assert!(result.contains("the store's totals, partition 1: "), "{result}");
    fixture.stop_processor().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn warming_restores_an_emptied_cache_without_the_owners() {
    let mut fixture = settled().await;
    let before = fixture.cache.read(&BUDGETS.map(budget)).await.unwrap();
    fixture.stop_processor().await;
    fixture.cache = Arc::new(MemoryCache::new());
    fixture.start_processor().await;
    let (verdict, result) = run(&fixture, JobKind::WarmCaches).await;
    let expected = format!("2 budgets published, {PARTITIONS} partitions each");
    assert_eq!((verdict, result), (Verdict::Clean, expected));
    assert_eq!(fixture.cache.read(&BUDGETS.map(budget)).await.unwrap(), before);
    fixture.stop_processor().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_job_writes_a_file_and_its_result_has_the_checksum() {
    let mut fixture = settled().await;
    fixture.stop_processor().await;
    let (wanted, format) = (definition(BUDGETS[0]), ExportFormat::Csv);
    let definitions = SqliteControlTopic::open(&fixture.dir.path().join("d.db")).unwrap();
    let define = |current: Option<&Budget>| define_if_absent(current, &wanted);
    definitions.change(&wanted.id, &define).await.unwrap();
    fixture.start_processor().await;
    let export = |id: &str| JobKind::Export { budget: budget(id), format, publish: false };
    let (verdict, result) = run(&fixture, export(BUDGETS[0])).await;
    assert_eq!(verdict, Verdict::Clean);
    let (summary, path) = result.rsplit_once(": ").unwrap();
    let people =
        fixture.cache.read(&[budget(BUDGETS[0])]).await.unwrap()[0].clone().unwrap().people;
    assert!(
        people > 0 && summary.starts_with(&format!("{people} people as of version ")),
        "{summary}"
    );
    let bytes = std::fs::read(path).unwrap();
    let digest = Sha256::digest(&bytes);
    let sum: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(summary.ends_with(&format!("{} bytes, sha256 {sum}", bytes.len())), "{summary}");
    let lines = bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
    assert_eq!(lines, people + 1, "one line per person and a header");
    assert_eq!(
        run_until_dead(&fixture, export("unknown-budget")).await,
        "there is no budget `unknown-budget`"
    );
    let exports = fixture.exports();
    let published = || exports.open_newest(&budget(BUDGETS[0]), format).unwrap();
    assert!(published().is_none(), "an export is not published by default");

    let publish = JobKind::Export { budget: budget(BUDGETS[0]), format, publish: true };
    for _ in 0..2 {
        run(&fixture, publish.clone()).await;
        assert_eq!(published().unwrap().manifest.sha256, sum);
    }
    let files = std::fs::read_dir(exports.dir(Audience::Everybody)).unwrap().count();
    assert_eq!(files, 2, "the previous export and its manifest are deleted");
    fixture.stop_processor().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_job_writes_results_people_over_time_and_the_verdict_of_an_audit() {
    let mut fixture = settled().await;
    fixture.stop_processor().await;
    let wanted =
        Budget { name: "<Roads & rails>".to_owned(), ..Budget::clone(&definition(BUDGETS[0])) };
    let definitions = SqliteControlTopic::open(&fixture.dir.path().join("d.db")).unwrap();
    let define = |current: Option<&Budget>| define_if_absent(current, &wanted);
    definitions.change(&wanted.id, &define).await.unwrap();
    fixture.start_processor().await;
    let report = |id: &str| JobKind::Report { budget: budget(id) };
    let (verdict, result) = run(&fixture, report(BUDGETS[0])).await;
    assert_eq!(verdict, Verdict::Clean, "{result}");
    let (_, paths) = result.split_once(": ").unwrap();
    let (html, json) = paths.split_once(", ").unwrap();
    let json: serde_json::Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    let cached = fixture.cache.read(&[budget(BUDGETS[0])]).await.unwrap()[0].clone().unwrap();
    assert_eq!(json["people"], cached.people);
    assert_eq!(json["categories"][0]["total_basis_points"], cached.categories[0].basis_points);
    let days = json["people_by_day"].as_array().unwrap();
    assert_eq!(days.last().unwrap()["people"], cached.people);
    assert!(days.len() > 80, "{}", days.len());
    assert_eq!(
        (&json["audit"]["verdict"], &json["audit"]["records"]),
        (&"clean".into(), &2_000.into())
    );
    let html = std::fs::read_to_string(html).unwrap();
    assert!(html.contains("&lt;Roads &amp; rails&gt;") && !html.contains("<Roads"), "{html}");
    assert!(html.contains("size: A4"));
    let unknown = run_until_dead(&fixture, report("unknown-budget")).await;
    assert_eq!(unknown, "there is no budget `unknown-budget`");
    fixture.stop_processor().await;
}

/// Reads every dead letter's address and state.
async fn dead_letter_states(fixture: &Fixture) -> Vec<(RecordAddress, DeadLetterState)> {
    let index = DeadLetterIndex::read(&fixture.dead_letter_journal()).await.unwrap();
    index.iter().map(|(address, tracked)| (address, tracked.state)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_is_replayed_once_for_any_number_of_jobs_or_refused_with_the_reason() {
    let mut fixture = settled().await;
    let misplaced = fixture.append_misplaced().await;
    fixture.wait_until_settled().await;
    let replay = |dead_letter| JobKind::ReplayDeadLetter { dead_letter, resume: false };
    let (verdict, result) = run(&fixture, replay(misplaced)).await;
    assert_eq!(verdict, Verdict::Clean);
    let address = result.strip_prefix("replayed as ").unwrap().parse::<RecordAddress>().unwrap();
    assert_ne!(address.partition, misplaced.partition);
    assert_eq!(run(&fixture, replay(misplaced)).await.1, result);
    let found = dead_letter_states(&fixture).await;
    assert!(found.contains(&(misplaced, DeadLetterState::Replayed(address))), "{found:?}");
    let end = fixture.reader().bounds(address.partition).await.unwrap().high;
    assert_eq!(end, address.offset.next(), "the record was appended once");

    let garbage = found.iter().find(|(_, state)| *state == DeadLetterState::Open).unwrap().0;
    // A refusal is a result: no retry changes it, so that no job is dead.
    let refused = run(&fixture, replay(garbage)).await;
    let reason = "refused: the fold still rejects it: the value is not a SubmissionRecord";
    assert_eq!(refused, (Verdict::Incomplete, reason.to_owned()));
    let refused = run(&fixture, JobKind::DropDeadLetter { dead_letter: misplaced }).await;
    let reason = format!("refused: it has been replayed as {address}");
    assert_eq!(refused, (Verdict::Incomplete, reason));
    fixture.stop_processor().await;
}

/// Appends, but loses the response of the first append.
struct LosingWriter {
    log: Arc<dyn LogWriter>,
    lost: AtomicBool,
}

#[async_trait]
impl LogWriter for LosingWriter {
    async fn append(&self, records: Vec<NewRecord>) -> Vec<Result<RecordAddress, AppendError>> {
        let results = self.log.append(records).await;
        if self.lost.swap(true, Ordering::Relaxed) {
            return results;
        }
        results.iter().map(|_| Err(AppendError::Unknown("lost".into()))).collect()
    }

    fn available(&self) -> Result<(), AppendError> {
        self.log.available()
    }
}

/// Starts a processor on a [`LosingWriter`], with a dead letter that can be replayed.
async fn start_with_losing_writer() -> (Fixture, Arc<LosingWriter>, RecordAddress) {
    let mut fixture = settled().await;
    let misplaced = fixture.append_misplaced().await;
    fixture.wait_until_settled().await;
    fixture.stop_processor().await;
    let writer = LosingWriter { log: Arc::clone(&fixture.writer), lost: AtomicBool::new(false) };
    let writer = Arc::new(writer);
    fixture.writer = Arc::clone(&writer) as _;
    fixture.start_processor().await;
    (fixture, writer, misplaced)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_whose_response_was_lost_is_found_by_the_next_attempt_and_appended_once() {
    let (mut fixture, writer, misplaced) = start_with_losing_writer().await;
    let kind = JobKind::ReplayDeadLetter { dead_letter: misplaced, resume: false };
    let (_, result) = run(&fixture, kind).await;
    assert!(writer.lost.load(Ordering::Relaxed), "the record was never appended");
    let address = result.strip_prefix("replayed as ").unwrap().parse::<RecordAddress>().unwrap();
    let end = fixture.reader().bounds(address.partition).await.unwrap().high;
    assert_eq!(end, address.offset.next(), "the record was appended once");
    fixture.stop_processor().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_cancelled_after_its_response_was_lost_succeeds_with_the_address_of_the_copy() {
    let (mut fixture, _, misplaced) = start_with_losing_writer().await;
    let id =
        submit_job(&fixture, JobKind::ReplayDeadLetter { dead_letter: misplaced, resume: false })
            .await;
    let is_waiting = |job: &Job| !job.failed_attempts.is_empty() && job.running().is_none();
    let job = wait_until(&fixture, id, is_waiting).await;
    let cancel = |job: &Job| job::cancel(job, job.changed_at_ms);
    update_job(fixture.store.as_ref(), job.id, cancel).await.unwrap();
    let JobState::Succeeded { result, .. } = wait_until(&fixture, id, Job::is_ended).await.state
    else {
        panic!("{:?}", fixture.store.job(id).await)
    };
    let result = result.to_string();
    let address = result.strip_prefix("replayed as ").unwrap().parse::<RecordAddress>().unwrap();
    assert!(
        dead_letter_states(&fixture)
            .await
            .contains(&(misplaced, DeadLetterState::Replayed(address)))
    );
    fixture.stop_processor().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_is_dropped_and_an_unknown_one_is_refused() {
    let mut fixture = settled().await;
    let (dead_letter, state) = dead_letter_states(&fixture).await[0];
    assert_eq!(state, DeadLetterState::Open);
    for _ in 0..2 {
        let (verdict, result) = run(&fixture, JobKind::DropDeadLetter { dead_letter }).await;
        assert_eq!((verdict, result.as_str()), (Verdict::Clean, "dropped"));
    }
    assert_eq!(dead_letter_states(&fixture).await[0], (dead_letter, DeadLetterState::Dropped));
    let (_, reason) = run(&fixture, JobKind::ReplayDeadLetter { dead_letter, resume: true }).await;
    assert_eq!(reason, "refused: it has been dropped");
    let unknown = RecordAddress { offset: Offset(1_000_000), ..dead_letter };
    for kind in [
        JobKind::DropDeadLetter { dead_letter: unknown },
        JobKind::ReplayDeadLetter { dead_letter: unknown, resume: false },
    ] {
        let refused = "refused: there is no such dead letter".to_owned();
        assert_eq!(run(&fixture, kind).await, (Verdict::Incomplete, refused));
    }
    fixture.stop_processor().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_job_copies_all_committed_records_and_the_next_one_only_new_records() {
    let mut fixture = settled().await;
    let reason = run_until_dead(&fixture, JobKind::Archive).await;
    assert_eq!(reason, "no archive directory is configured: `archive.dir`");
    fixture.stop_processor().await;
    let dir = fixture.dir.path().join("archive");
    fixture.archive = Some(dir.clone());
    fixture.start_processor().await;
    let (verdict, result) = run(&fixture, JobKind::Archive).await;
    assert_eq!(
        (verdict, result),
        (Verdict::Clean, format!("2000 records, 2000 of them new: {}", dir.display()))
    );
    fixture.append(100).await;
    fixture.wait_until_settled().await;
    let (_, result) = run(&fixture, JobKind::Archive).await;
    assert_eq!(result, format!("2100 records, 100 of them new: {}", dir.display()));
    let (log, progress) = (fixture.reader(), Arc::new(Progress::default()));
    let found = check_archive(&log, TOPIC, &dir, &progress).await.unwrap();
    assert_eq!((found.records, found.faults), (2_100, Vec::new()));
    fixture.stop_processor().await;
}
