//! Properties of job transitions under any sequence of steps, and of the fair queue under any load.

use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::{LogNumber, Offset, PartitionId, RecordAddress};

const WORKERS: [&str; 2] = ["one", "two"];

fn id(number: u64) -> JobId {
    JobId::new(number, Uuid::from_u128(u128::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15)))
}

fn new(number: u64, priority: Priority) -> Job {
    let kind = JobKind::Rebuild { dry_run: number.is_multiple_of(2) };
    let new = NewJob { id: id(number), kind, priority, requested_by: "an operator".into() };
    submit(new, &[], number).unwrap()
}

#[derive(Debug, Clone)]
enum Step {
    Claim(usize),
    TakeOver(usize),
    ReportProgress(usize),
    SaveCheckpoint(usize),
    Succeed(usize),
    Fail(usize, u64),
    FailPermanently(usize),
    Release(usize),
    Cancel,
    FinishCancel(usize),
    Retry,
}

fn any_step() -> impl Strategy<Value = Step> {
    let worker = 0..WORKERS.len();
    prop_oneof![
        4 => worker.clone().prop_map(Step::Claim),
        2 => worker.clone().prop_map(Step::TakeOver),
        1 => worker.clone().prop_map(Step::ReportProgress),
        1 => worker.clone().prop_map(Step::SaveCheckpoint),
        1 => worker.clone().prop_map(Step::Succeed),
        3 => (worker.clone(), any::<u64>()).prop_map(|(worker, random)| Step::Fail(worker, random)),
        1 => worker.clone().prop_map(Step::FailPermanently),
        2 => worker.clone().prop_map(Step::Release),
        1 => Just(Step::Cancel),
        1 => worker.prop_map(Step::FinishCancel),
        2 => Just(Step::Retry),
    ]
}

/// The latest attempt of each worker; it may have ended.
type Attempts = [Option<Attempt>; WORKERS.len()];

fn apply(
    job: &Job,
    step: &Step,
    attempts: &Attempts,
    now_ms: u64,
) -> Result<Job, JobTransitionError> {
    let never = Attempt { worker: "no worker".into(), began_at_ms: 0 };
    let of = |worker: usize| attempts[worker].as_ref().unwrap_or(&never);
    match *step {
        Step::Claim(worker) => claim(job, &WORKERS[worker].into(), now_ms),
        Step::TakeOver(worker) => take_over(job, &WORKERS[worker].into(), now_ms),
        Step::ReportProgress(worker) => {
            let progress = JobProgress { done: now_ms, total: now_ms, message: "half way".into() };
            report_progress(job, of(worker), progress, now_ms)
        }
        Step::SaveCheckpoint(worker) => {
            save_checkpoint(job, of(worker), JobCheckpoint::of(&now_ms).unwrap(), now_ms)
        }
        Step::Succeed(worker) => {
            succeed(job, of(worker), Verdict::Different, "found it".into(), now_ms)
        }
        Step::Fail(worker, random) => fail(job, of(worker), "no luck".into(), random, now_ms),
        Step::FailPermanently(worker) => fail_permanently(job, of(worker), "failed".into(), now_ms),
        Step::Release(worker) => release(job, of(worker), now_ms),
        Step::Cancel => cancel(job, now_ms),
        Step::FinishCancel(worker) => finish_cancel(job, of(worker), now_ms),
        Step::Retry => retry(job, now_ms),
    }
}

proptest! {
    #[test]
    fn only_a_retry_leaves_an_ended_state_and_attempts_are_bounded(
        steps in prop::collection::vec((any_step(), 0..40_000_u64), 1..80),
    ) {
        let (mut job, mut now_ms) = (new(7, Priority::Normal), 1_795_212_000_000);
        let mut cancel_requested = false;
        let mut attempts = Attempts::default();
        for (step, pause_ms) in steps {
            now_ms += pause_ms + 1;
            let Ok(next) = apply(&job, &step, &attempts, now_ms) else { continue };
            prop_assert_eq!(next.revision, job.revision + 1);
            prop_assert!(!job.is_ended() || matches!(step, Step::Retry), "{:?} of {:?}", step, job);
            prop_assert!(next.attempts() <= MAX_ATTEMPTS);
            prop_assert!(next.is_ended() || next.failed_attempts.len() < MAX_ATTEMPTS);
            prop_assert_eq!(
                (next.id, &next.kind, next.created_at_ms),
                (job.id, &job.kind, job.created_at_ms)
            );
            // A checkpoint is never lost: a cancellation needs it.
            prop_assert!(job.checkpoint.is_none() || next.checkpoint.is_some());
            // A requested cancellation is never lost, not even by a retry.
            cancel_requested |= matches!(step, Step::Cancel);
            let is_over =
                matches!(next.state, JobState::Cancelled { .. } | JobState::Succeeded { .. });
            prop_assert!(!cancel_requested || next.is_cancelling() || is_over, "{:?}", next);
            prop_assert!(cancel_requested || !next.is_cancelling());
            if let (Step::Fail(..), JobState::Queued { not_before_ms, .. }) = (&step, &next.state) {
                let pause_ms = not_before_ms - now_ms;
                prop_assert!((MIN_BACKOFF_MS / 2..=MAX_BACKOFF_MS).contains(&pause_ms));
            }
            let read = Job::from_json(&next.to_json());
            prop_assert_eq!(read.as_ref(), Some(&next));
            if let Some(attempt) = next.running() {
                let worker = WORKERS.iter().position(|name| attempt.worker.as_str() == *name);
                attempts[worker.unwrap()] = Some(attempt.clone());
            }
            job = next;
        }
    }

    #[test]
    fn bounding_a_text_is_idempotent_and_limits_its_size(text in "\\PC{0,400}|(\\PC|\\pC){0,80}") {
        let clipped = BoundedText::<100>::from(text.as_str());
        prop_assert!(clipped.as_str().len() <= 100);
        prop_assert!(!clipped.as_str().chars().any(|c| c.is_control() && c != '\n'));
        prop_assert_eq!(&BoundedText::<100>::from(clipped.as_str()), &clipped);
    }

}

proptest! {
    // Only some interleavings of submissions and starts show a violation.
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    #[test]
    fn at_most_one_less_urgent_job_delays_a_critical_job(
        before in prop::collection::vec(any_priority(), 0..60),
        begun in 0..40_usize,
        after in prop::collection::vec(prop::collection::vec(any_priority(), 0..3), 1..60),
    ) {
        let mut worker = Worker::default();
        before.into_iter().filter(|it| *it < Priority::Critical).for_each(|it| worker.submit(it));
        for _ in 0..begun {
            worker.start_next();
        }
        // It is submitted while another job runs, and less urgent jobs are submitted after it.
        let critical = worker.submit_with_id(Priority::Critical);
        let mut less_urgent = usize::from(worker.last.is_some());
        for more in after {
            more.into_iter().filter(|it| *it < Priority::Critical).for_each(|it| worker.submit(it));
            let Some(begun) = worker.start_next() else { break };
            if begun.id == critical {
                break;
            }
            less_urgent += 1;
        }
        prop_assert_eq!(worker.last, Some(critical));
        prop_assert!(less_urgent <= 1, "{} less urgent jobs ran first", less_urgent);
    }

    #[test]
    fn every_job_starts_after_a_bounded_number_of_other_jobs(
        before in prop::collection::vec(any_priority(), 0..12),
        waits in any_priority(),
        after in prop::collection::vec(prop::collection::vec(any_priority(), 1..4), 200),
    ) {
        let mut worker = Worker::default();
        before.iter().for_each(|it| worker.submit(*it));
        let waiting = worker.submit_with_id(waits);
        let bound = (before.len() + 1) * (MAX_CONSECUTIVE_BYPASSES as usize + 4);
        let mut others = 0;
        for more in after {
            more.into_iter().for_each(|it| worker.submit(it));
            if worker.start_next().is_some_and(|begun| begun.id == waiting) {
                break;
            }
            others += 1;
        }
        prop_assert!(others <= bound, "{} other jobs ran first", others);
    }
}

fn any_priority() -> impl Strategy<Value = Priority> {
    prop::sample::select(&Priority::ALL[..])
}

/// A worker that starts a job as soon as the previous one has ended.
#[derive(Default)]
struct Worker {
    fair_queue: FairQueue,
    queue: Vec<Job>,
    submitted: u64,
    /// The job started last.
    last: Option<JobId>,
}

impl Worker {
    fn submit(&mut self, priority: Priority) {
        self.submit_with_id(priority);
    }

    fn submit_with_id(&mut self, priority: Priority) -> JobId {
        self.submitted += 1;
        self.queue.push(new(self.submitted, priority));
        id(self.submitted)
    }

    fn start_next(&mut self) -> Option<Job> {
        let ready: Vec<&Job> = self.queue.iter().collect();
        let next = self.fair_queue.pick(&ready)?.clone();
        self.fair_queue.record_start(&next, &ready);
        self.queue.retain(|job| job.id != next.id);
        self.last = Some(next.id);
        Some(next)
    }
}

#[test]
fn jobs_run_by_priority_and_then_by_age() {
    let jobs = [new(1, Priority::Low), new(3, Priority::High), new(2, Priority::High)];
    let ready: Vec<&Job> = jobs.iter().collect();
    assert_eq!(FairQueue::default().pick(&ready).map(|job| job.id), Some(id(2)));
    assert_eq!(FairQueue::default().pick(&[]), None);
}

#[test]
fn a_bypassed_job_is_not_bypassed_by_a_less_urgent_one() {
    let mut worker = Worker::default();
    let waiting = worker.submit_with_id(Priority::Normal);
    for _ in 0..MAX_CONSECUTIVE_BYPASSES {
        worker.submit(Priority::High);
        assert_eq!(worker.start_next().unwrap().priority, Priority::High);
    }
    // The bypassed job is next, and no job is more urgent.
    worker.submit(Priority::Low);
    assert_eq!(worker.start_next().map(|job| job.id), Some(waiting));
}

#[test]
fn a_worker_that_lost_its_lease_changes_nothing_and_its_attempt_counts_as_failed() {
    let job = claim(&new(1, Priority::Normal), &"one".into(), 10).unwrap();
    let lost = job.running().unwrap().clone();
    let taken = take_over(&job, &"two".into(), 20).unwrap();
    assert_eq!((taken.attempts(), taken.failed_attempts[0].attempt.clone()), (2, lost.clone()));
    let done = succeed(&taken, &lost, Verdict::Clean, "done".into(), 30);
    assert_eq!(done, Err(JobTransitionError::LeaseLost));
    assert_eq!(release(&taken, &lost, 30), Err(JobTransitionError::LeaseLost));
    assert_eq!(take_over(&taken, &"two".into(), 40), Err(JobTransitionError::LeaseLost));
}

#[test]
fn a_job_is_dead_after_its_last_lease_expires() {
    let mut job = claim(&new(1, Priority::Normal), &"worker 0".into(), 1).unwrap();
    for number in 1..=MAX_ATTEMPTS {
        job = take_over(&job, &format!("worker {number}").into(), 1).unwrap();
    }
    let JobState::Dead { reason, .. } = &job.state else { panic!("{job:?}") };
    assert_eq!(
        reason.as_str(),
        "failed 5 times, last error: its worker stopped renewing the lease: it was killed or cut off"
    );
    let again = retry(&job, 2).unwrap();
    assert_eq!((again.attempts(), again.state.name()), (0, "queued"));
}

#[test]
fn a_job_without_checkpoint_is_cancelled_at_once_and_others_by_a_worker() {
    let job = new(1, Priority::Normal);
    assert_eq!(cancel(&job, 2).unwrap().state, JobState::Cancelled { ended_at_ms: 2 });
    let running = claim(&job, &"one".into(), 3).unwrap();
    let attempt = running.running().unwrap().clone();
    let begun = save_checkpoint(&running, &attempt, JobCheckpoint::of(&2).unwrap(), 4).unwrap();
    let back = cancel(&release(&begun, &attempt, 5).unwrap(), 6).unwrap();
    assert_eq!(back.state, JobState::Queued { not_before_ms: 0, cancelling: true });
    assert_eq!(cancel(&back, 7), Err(JobTransitionError::Cancelling));
    let again = claim(&back, &"two".into(), 8).unwrap();
    assert!(again.is_cancelling());
    let ended = finish_cancel(&again, again.running().unwrap(), 9).unwrap();
    assert_eq!(cancel(&ended, 10), Err(JobTransitionError::Ended("cancelled")));
    assert_eq!(retry(&ended, 10), Err(JobTransitionError::NotDead("cancelled")));
}

#[test]
fn retrying_a_job_that_died_while_cancelling_only_resumes_the_cancellation() {
    let running = claim(&new(1, Priority::Normal), &"one".into(), 1).unwrap();
    let attempt = running.running().unwrap().clone();
    let begun = save_checkpoint(&running, &attempt, JobCheckpoint::of(&2).unwrap(), 2).unwrap();
    let cancelling = cancel(&begun, 3).unwrap();
    let parked = fail_permanently(&cancelling, &attempt, "failed".into(), 4).unwrap();
    let mut silent = cancelling;
    for number in 1..=MAX_ATTEMPTS {
        silent = take_over(&silent, &format!("worker {number}").into(), 5).unwrap();
    }
    for dead in [parked, silent] {
        assert_eq!((dead.state.name(), dead.is_cancelling()), ("dead", true));
        assert_eq!(cancel(&dead, 6), Err(JobTransitionError::Ended("dead")));
        let again = retry(&dead, 7).unwrap();
        assert_eq!(again.state, JobState::Queued { not_before_ms: 0, cancelling: true });
    }
}

#[test]
fn only_a_backoff_depends_on_the_clock() {
    // The clock of the submitter is an hour ahead of the clocks of the workers.
    let (ahead_ms, now_ms) = (4_000_000, 400_000);
    let job = claim(&new(ahead_ms, Priority::Normal), &"one".into(), now_ms).unwrap();
    let attempt = job.running().unwrap().clone();
    let back = release(&job, &attempt, ahead_ms).unwrap();
    assert!(claim(&back, &"two".into(), now_ms).is_ok());
    let parked = fail_permanently(&job, &attempt, "failed".into(), now_ms).unwrap();
    assert!(claim(&retry(&parked, ahead_ms).unwrap(), &"two".into(), now_ms).is_ok());
    let begun = save_checkpoint(&job, &attempt, JobCheckpoint::of(&2).unwrap(), now_ms).unwrap();
    let failed = fail(&begun, &attempt, "no luck".into(), 0, now_ms).unwrap();
    assert_eq!(claim(&failed, &"two".into(), now_ms), Err(JobTransitionError::NotDue));
    assert!(claim(&cancel(&failed, ahead_ms).unwrap(), &"two".into(), now_ms).is_ok());
    // No worker waits for a time that only the clock ahead has reached.
    let failed = fail(&begun, &attempt, "no luck".into(), 0, ahead_ms).unwrap();
    assert!(claim(&failed, &"two".into(), now_ms).is_ok());
}

#[test]
fn a_full_queue_of_one_priority_does_not_block_another() {
    let flood: Vec<Job> = (0..MAX_OPEN_JOBS as u64).map(|n| new(n, Priority::Low)).collect();
    let ask = |priority| {
        let (id, requested_by) = (id(999), "an operator".into());
        submit(NewJob { id, kind: JobKind::Audit, priority, requested_by }, &flood, 5)
    };
    assert_eq!(ask(Priority::Low), Err(JobTransitionError::Full(Priority::Low)));
    assert_eq!(ask(Priority::Critical).unwrap().revision, 1);
}

#[test]
fn only_the_newest_ended_jobs_are_kept_and_open_jobs_always() {
    let end = |number: u64| Job {
        state: JobState::Cancelled { ended_at_ms: 1_000 - number },
        ..new(number, Priority::Low)
    };
    let mut jobs: Vec<Job> = (0..MAX_KEPT_ENDED_JOBS as u64 + 2).map(end).collect();
    jobs.extend((200..230).map(|number| new(number, Priority::Low)));
    // Dead jobs have a limit of their own.
    let die = |number: u64| Job {
        state: JobState::Dead {
            ended_at_ms: 900 - number,
            reason: "failed".into(),
            cancelling: false,
        },
        ..new(number, Priority::Low)
    };
    jobs.extend((300..400).map(die));
    let left = |jobs: &[Job]| expired(jobs).iter().map(|job| job.id).collect::<Vec<_>>();
    assert_eq!(left(&jobs), [id(100), id(101)]);
    jobs.extend((400..402).map(die));
    assert_eq!(left(&jobs), [id(100), id(101), id(400), id(401)]);
}

#[test]
fn ids_are_of_version_7_and_ordered_by_time() {
    let (early, late) = (id(1_795_212_000_000), id(1_795_212_000_001));
    assert!(early < late && early.0.get_version_num() == 7);
    assert_eq!(early.to_string().parse(), Ok(early));
}

#[test]
fn a_name_and_a_requester_give_one_id() {
    let named = JobId::from_name("alice", "nightly");
    assert_eq!(named, JobId::from_name("alice", "nightly"));
    for (who, name) in [("alice", "nightly2"), ("bob", "nightly"), ("alicen", "ightly")] {
        assert_ne!(named, JobId::from_name(who, name), "{who} {name}");
    }
}

#[test]
fn a_job_is_one_flat_json_object_and_damage_is_detected() {
    let job = claim(&new(4, Priority::Critical), &"one".into(), 10).unwrap();
    let value: serde_json::Value = serde_json::from_str(&job.to_json()).unwrap();
    assert_eq!((&value["kind"], &value["dry_run"]), (&"rebuild".into(), &true.into()));
    assert_eq!((&value["state"], &value["worker"]), (&"running".into(), &"one".into()));
    assert_eq!(value["priority"], "critical");
    assert_eq!(Job::from_json(&job.to_json().replace("running", "walking")), None);
    assert_eq!(Job::from_json("{}"), None);
    let dead_letter =
        RecordAddress { log: LogNumber::FIRST, partition: PartitionId(3), offset: Offset(1042) };
    for kind in [
        JobKind::ReplayDeadLetter { dead_letter, resume: true },
        JobKind::DropDeadLetter { dead_letter },
        JobKind::Report { budget: crate::BudgetId::parse("taxes").unwrap() },
    ] {
        let job = Job { kind, ..job.clone() };
        assert_eq!(Job::from_json(&job.to_json()), Some(job));
    }
}

#[test]
fn a_too_large_checkpoint_is_rejected() {
    assert_eq!(JobCheckpoint::of(&(3, "x")).unwrap().read(), Some((3, "x".to_owned())));
    let large = JobCheckpoint::of(&"x".repeat(9_000));
    assert_eq!(large, Err(CheckpointFault::TooLarge(9_002)));
}
