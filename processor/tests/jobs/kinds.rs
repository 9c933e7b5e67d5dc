//! Each kind of job, by a whole processor.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use processor::archive::{ArchiveProgress, check_archive};
use schemas::job::{self, ExportFormat, Job, JobId, JobKind, JobState, NewJob, Priority, Verdict};
use schemas::{Budget, Generation, Offset, Receipt};
use sha2::{Digest, Sha256};
use storage::cache::memory::MemoryCache;
use storage::definitions::sqlite::SqliteDefinitions;
use storage::definitions::{Definitions, define_if_absent};
use storage::exports::Audience;
use storage::jobs::{JobStore, change, submit};
use storage::log::letters::{LetterState, Letters};
use storage::log::{AppendError, LogReader, LogWriter, NewRecord};
use storage::store::{Store, StoredPartition};
use tokio::time::{Instant, sleep};

use crate::whole::{BUDGETS, Fixture, PARTITIONS, TOPIC, budget, definition};

async fn settled() -> Fixture {
    let fixture = Fixture::start().await;
    fixture.append(2_000).await;
    fixture.settle().await;
    fixture
}

/// Asks for a job.
async fn ask(fixture: &Fixture, kind: JobKind) -> JobId {
    let id = JobId::new(1, uuid::Uuid::new_v4());
    let (priority, asked_by) = (Priority::Normal, "an operator".into());
    let new = NewJob { id, kind, priority, asked_by };
    submit(fixture.store.as_ref(), new, 1).await.unwrap();
    id
}

/// Asks for a job, and waits for its end.
async fn ended(fixture: &Fixture, kind: JobKind) -> JobState {
    let id = ask(fixture, kind).await;
    until(fixture, id, Job::is_ended).await.state
}

/// Waits until a job is so.
async fn until(fixture: &Fixture, id: JobId, is_so: impl Fn(&Job) -> bool) -> Job {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let job = fixture.store.job(id).await.unwrap().unwrap();
        if is_so(&job) {
            return job;
        }
        assert!(Instant::now() < deadline, "{job:?}");
        sleep(Duration::from_millis(10)).await;
    }
}

/// Asks for a job, and waits until it is done.
async fn done(fixture: &Fixture, kind: JobKind) -> (Verdict, String) {
    match ended(fixture, kind).await {
        JobState::Succeeded { verdict, result, .. } => (verdict, result.to_string()),
        other => panic!("{other:?}"),
    }
}

/// Asks for a job that cannot be done; why not.
async fn dead(fixture: &Fixture, kind: JobKind) -> String {
    match ended(fixture, kind).await {
        JobState::Dead { reason, .. } => reason.to_string(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_lets_a_new_generation_answer() {
    let mut fixture = settled().await;
    let (verdict, result) = done(&fixture, JobKind::Rebuild { dry_run: false }).await;
    assert_eq!(verdict, Verdict::Clean, "{result}");
    assert_eq!(result, "generation 2 answers now; compared with 1: 2000 records, 0 differences");
    assert_eq!(fixture.store.roster().await.unwrap().unwrap().current.generation, Generation(2));
    fixture.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audit_names_what_differs_as_its_result() {
    let mut fixture = settled().await;
    let (verdict, result) = done(&fixture, JobKind::Audit).await;
    assert_eq!(
        (verdict, result.as_str()),
        (Verdict::Clean, "2000 records, 2 budgets: 0 differences, 0 not compared")
    );
    fixture.end().await;
    // As many as before, and so nobody but an audit sees it.
    let forge = |stored: &mut StoredPartition| {
        stored.checkpoint.tally.applied -= 1;
        stored.checkpoint.tally.duplicates += 1;
    };
    fixture.overwrite(1, forge).await;
    fixture.begin().await;
    let (verdict, result) = done(&fixture, JobKind::Audit).await;
    assert_eq!(verdict, Verdict::Different, "{result}");
    assert!(result.contains("the store's totals, partition 1: "), "{result}");
    fixture.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn warming_makes_an_emptied_copy_whole_at_once_without_the_owners() {
    let mut fixture = settled().await;
    let before = fixture.cache.read(&BUDGETS.map(budget)).await.unwrap();
    fixture.end().await;
    fixture.cache = Arc::new(MemoryCache::new());
    fixture.begin().await;
    let (verdict, result) = done(&fixture, JobKind::WarmCaches).await;
    let told = format!("2 budgets told, {PARTITIONS} partitions each");
    assert_eq!((verdict, result), (Verdict::Clean, told));
    assert_eq!(fixture.cache.read(&BUDGETS.map(budget)).await.unwrap(), before);
    fixture.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_is_a_file_of_everyone_whose_sum_is_the_result() {
    let mut fixture = settled().await;
    fixture.end().await;
    let (wanted, format) = (definition(BUDGETS[0]), ExportFormat::Csv);
    let definitions = SqliteDefinitions::open(&fixture.dir.path().join("d.db")).unwrap();
    let define = |current: Option<&Budget>| define_if_absent(current, &wanted);
    definitions.change(&wanted.id, &define).await.unwrap();
    fixture.begin().await;
    let export = |id: &str| JobKind::Export { budget: budget(id), format, publish: false };
    let (verdict, result) = done(&fixture, export(BUDGETS[0])).await;
    assert_eq!(verdict, Verdict::Clean);
    let (said, path) = result.rsplit_once(": ").unwrap();
    let people =
        fixture.cache.read(&[budget(BUDGETS[0])]).await.unwrap()[0].clone().unwrap().people;
    assert!(people > 0 && said.starts_with(&format!("{people} people as of version ")), "{said}");
    let bytes = std::fs::read(path).unwrap();
    let digest = Sha256::digest(&bytes);
    let sum: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(said.ends_with(&format!("{} bytes, sha256 {sum}", bytes.len())), "{said}");
    let lines = bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
    assert_eq!(lines, people + 1, "a line a person and one of names");
    assert_eq!(dead(&fixture, export("nobody-knows")).await, "there is no budget `nobody-knows`");
    let exports = fixture.exports();
    let published = || exports.newest(&budget(BUDGETS[0]), format).unwrap();
    assert!(published().is_none(), "nobody has decided to publish it");

    let publish = JobKind::Export { budget: budget(BUDGETS[0]), format, publish: true };
    for _ in 0..2 {
        done(&fixture, publish.clone()).await;
        assert_eq!(published().unwrap().manifest.sha256, sum);
    }
    let files = std::fs::read_dir(exports.dir(Audience::Everybody)).unwrap().count();
    assert_eq!(files, 2, "the one published before, and what was said about it, are gone");
    fixture.end().await;
}

/// Every dead letter, by what has become of it.
async fn letters(fixture: &Fixture) -> Vec<(Receipt, LetterState)> {
    let letters = Letters::read(&fixture.letters()).await.unwrap();
    letters.iter().map(|(place, letter)| (place, letter.state)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_is_replayed_once_however_often_that_is_asked_for_or_refused_with_the_reason()
{
    let mut fixture = settled().await;
    let misplaced = fixture.misplace().await;
    fixture.settle().await;
    let replay = |letter| JobKind::ReplayDeadLetter { letter, resume: false };
    let (verdict, result) = done(&fixture, replay(misplaced)).await;
    assert_eq!(verdict, Verdict::Clean);
    let place = result.strip_prefix("replayed as ").unwrap().parse::<Receipt>().unwrap();
    assert_ne!(place.partition, misplaced.partition);
    assert_eq!(done(&fixture, replay(misplaced)).await.1, result);
    let found = letters(&fixture).await;
    assert!(found.contains(&(misplaced, LetterState::Replayed(place))), "{found:?}");
    let end = fixture.reader().bounds(place.partition).await.unwrap().high;
    assert_eq!(end, place.offset.next(), "it was appended once");

    let garbage = found.iter().find(|(_, state)| *state == LetterState::Open).unwrap().0;
    let why = dead(&fixture, replay(garbage)).await;
    assert_eq!(why, "it still cannot be taken: the value is not a SubmissionRecord");
    let why = dead(&fixture, JobKind::DropDeadLetter { letter: misplaced }).await;
    assert_eq!(why, format!("it has been replayed as {place}"));
    fixture.end().await;
}

/// Appends, and does not say so the first time.
struct Losing {
    log: Arc<dyn LogWriter>,
    lost: AtomicBool,
}

#[async_trait]
impl LogWriter for Losing {
    async fn append(&self, records: Vec<NewRecord>) -> Vec<Result<Receipt, AppendError>> {
        let answers = self.log.append(records).await;
        if self.lost.swap(true, Ordering::Relaxed) {
            return answers;
        }
        answers.iter().map(|_| Err(AppendError::Unknown("lost".into()))).collect()
    }

    fn available(&self) -> Result<(), AppendError> {
        self.log.available()
    }
}

/// A processor whose log appends, and does not say so the first time; and a letter that can be replayed.
async fn losing() -> (Fixture, Arc<Losing>, Receipt) {
    let mut fixture = settled().await;
    let misplaced = fixture.misplace().await;
    fixture.settle().await;
    fixture.end().await;
    let losing = Losing { log: Arc::clone(&fixture.writer), lost: AtomicBool::new(false) };
    let losing = Arc::new(losing);
    fixture.writer = Arc::clone(&losing) as _;
    fixture.begin().await;
    (fixture, losing, misplaced)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_whose_answer_is_lost_is_found_by_the_next_try_and_appended_once() {
    let (mut fixture, losing, misplaced) = losing().await;
    let kind = JobKind::ReplayDeadLetter { letter: misplaced, resume: false };
    let (_, result) = done(&fixture, kind).await;
    assert!(losing.lost.load(Ordering::Relaxed), "it was never appended");
    let place = result.strip_prefix("replayed as ").unwrap().parse::<Receipt>().unwrap();
    let end = fixture.reader().bounds(place.partition).await.unwrap().high;
    assert_eq!(end, place.offset.next(), "it was appended once");
    fixture.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_that_is_called_off_after_its_answer_was_lost_says_where_the_record_stands() {
    let (mut fixture, _, misplaced) = losing().await;
    let id = ask(&fixture, JobKind::ReplayDeadLetter { letter: misplaced, resume: false }).await;
    let waits = |job: &Job| !job.failed.is_empty() && job.running().is_none();
    let job = until(&fixture, id, waits).await;
    let call_off = |job: &Job| job::cancel(job, job.changed_at_ms);
    change(fixture.store.as_ref(), job.id, call_off).await.unwrap();
    let JobState::Succeeded { result, .. } = until(&fixture, id, Job::is_ended).await.state else {
        panic!("{:?}", fixture.store.job(id).await)
    };
    let result = result.to_string();
    let place = result.strip_prefix("replayed as ").unwrap().parse::<Receipt>().unwrap();
    assert!(letters(&fixture).await.contains(&(misplaced, LetterState::Replayed(place))));
    fixture.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_is_dropped_and_one_that_never_was_is_not() {
    let mut fixture = settled().await;
    let (letter, state) = letters(&fixture).await[0];
    assert_eq!(state, LetterState::Open);
    for _ in 0..2 {
        let (verdict, result) = done(&fixture, JobKind::DropDeadLetter { letter }).await;
        assert_eq!((verdict, result.as_str()), (Verdict::Clean, "dropped"));
    }
    assert_eq!(letters(&fixture).await[0], (letter, LetterState::Dropped));
    let why = dead(&fixture, JobKind::ReplayDeadLetter { letter, resume: true }).await;
    assert_eq!(why, "it has been dropped");
    let nothing = Receipt { offset: Offset(1_000_000), ..letter };
    for kind in [
        JobKind::DropDeadLetter { letter: nothing },
        JobKind::ReplayDeadLetter { letter: nothing, resume: false },
    ] {
        assert_eq!(dead(&fixture, kind).await, "there is no such dead letter");
    }
    fixture.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_has_everything_that_is_committed_and_the_next_one_only_adds() {
    let mut fixture = settled().await;
    let why = dead(&fixture, JobKind::Archive).await;
    assert_eq!(why, "no folder is configured for it: `archive.dir`");
    fixture.end().await;
    let dir = fixture.dir.path().join("archive");
    fixture.archive = Some(dir.clone());
    fixture.begin().await;
    let (verdict, result) = done(&fixture, JobKind::Archive).await;
    assert_eq!(
        (verdict, result),
        (Verdict::Clean, format!("2000 records, 2000 of them new: {}", dir.display()))
    );
    fixture.append(100).await;
    fixture.settle().await;
    let (_, result) = done(&fixture, JobKind::Archive).await;
    assert_eq!(result, format!("2100 records, 100 of them new: {}", dir.display()));
    let (log, progress) = (fixture.reader(), Arc::new(ArchiveProgress::default()));
    let found = check_archive(&log, TOPIC, &dir, &progress).await.unwrap();
    assert_eq!((found.records, found.faults), (2_100, Vec::new()));
    fixture.end().await;
}
