//! What holds of jobs whatever is done to them, and of turns whatever is asked for.

use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::{LogNumber, Offset, PartitionId, Receipt};

const WORKERS: [&str; 2] = ["one", "two"];

fn id(number: u64) -> JobId {
    JobId::new(number, Uuid::from_u128(u128::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15)))
}

fn new(number: u64, priority: Priority) -> Job {
    let kind = JobKind::Rebuild { dry_run: number.is_multiple_of(2) };
    let new = NewJob { id: id(number), kind, priority, asked_by: "an operator".into() };
    submit(new, &[], number).unwrap()
}

#[derive(Debug, Clone)]
enum Step {
    Claim(usize),
    TakeOver(usize),
    Tell(usize),
    Save(usize),
    Succeed(usize),
    Fail(usize, u64),
    Park(usize),
    HandBack(usize),
    Cancel,
    Cancelled(usize),
    Retry,
}

fn any_step() -> impl Strategy<Value = Step> {
    let worker = 0..WORKERS.len();
    prop_oneof![
        4 => worker.clone().prop_map(Step::Claim),
        2 => worker.clone().prop_map(Step::TakeOver),
        1 => worker.clone().prop_map(Step::Tell),
        1 => worker.clone().prop_map(Step::Save),
        1 => worker.clone().prop_map(Step::Succeed),
        3 => (worker.clone(), any::<u64>()).prop_map(|(worker, random)| Step::Fail(worker, random)),
        1 => worker.clone().prop_map(Step::Park),
        2 => worker.clone().prop_map(Step::HandBack),
        1 => Just(Step::Cancel),
        1 => worker.prop_map(Step::Cancelled),
        2 => Just(Step::Retry),
    ]
}

/// The last attempt of a worker, which may be over.
type Attempts = [Option<Attempt>; WORKERS.len()];

fn take(job: &Job, step: &Step, attempts: &Attempts, now_ms: u64) -> Result<Job, JobRefused> {
    let never = Attempt { worker: "nobody".into(), began_at_ms: 0 };
    let of = |worker: usize| attempts[worker].as_ref().unwrap_or(&never);
    match *step {
        Step::Claim(worker) => claim(job, &WORKERS[worker].into(), now_ms),
        Step::TakeOver(worker) => take_over(job, &WORKERS[worker].into(), now_ms),
        Step::Tell(worker) => {
            let progress = JobProgress { done: now_ms, of: now_ms, line: "half way".into() };
            tell(job, of(worker), progress, now_ms)
        }
        Step::Save(worker) => save(job, of(worker), JobCheckpoint::of(&now_ms).unwrap(), now_ms),
        Step::Succeed(worker) => {
            succeed(job, of(worker), Verdict::Different, "found it".into(), now_ms)
        }
        Step::Fail(worker, random) => fail(job, of(worker), "no luck".into(), random, now_ms),
        Step::Park(worker) => park(job, of(worker), "in vain".into(), now_ms),
        Step::HandBack(worker) => hand_back(job, of(worker), now_ms),
        Step::Cancel => cancel(job, now_ms),
        Step::Cancelled(worker) => cancelled(job, of(worker), now_ms),
        Step::Retry => retry(job, now_ms),
    }
}

proptest! {
    #[test]
    fn whatever_is_done_an_ended_job_is_only_left_by_a_retry_and_is_not_tried_too_often(
        steps in prop::collection::vec((any_step(), 0..40_000_u64), 1..80),
    ) {
        let (mut job, mut now_ms) = (new(7, Priority::Normal), 1_795_212_000_000);
        let mut called_off = false;
        let mut attempts = Attempts::default();
        for (step, pause_ms) in steps {
            now_ms += pause_ms + 1;
            let Ok(next) = take(&job, &step, &attempts, now_ms) else { continue };
            prop_assert_eq!(next.revision, job.revision + 1);
            prop_assert!(!job.is_ended() || matches!(step, Step::Retry), "{:?} of {:?}", step, job);
            prop_assert!(next.attempts() <= MAX_ATTEMPTS);
            prop_assert!(next.is_ended() || next.failed.len() < MAX_ATTEMPTS);
            prop_assert_eq!(
                (next.id, &next.kind, next.created_at_ms),
                (job.id, &job.kind, job.created_at_ms)
            );
            // What a job has begun is never forgotten while somebody may have to give it up.
            prop_assert!(job.checkpoint.is_none() || next.checkpoint.is_some());
            // Nor is a wish to end: it never goes on towards its goal again, whoever retries it.
            called_off |= matches!(step, Step::Cancel);
            let is_over =
                matches!(next.state, JobState::Cancelled { .. } | JobState::Succeeded { .. });
            prop_assert!(!called_off || next.is_cancelling() || is_over, "{:?}", next);
            prop_assert!(called_off || !next.is_cancelling());
            if let (Step::Fail(..), JobState::Queued { not_before_ms, .. }) = (&step, &next.state) {
                let pause_ms = not_before_ms - now_ms;
                prop_assert!((SHORTEST_BACKOFF_MS / 2..=LONGEST_BACKOFF_MS).contains(&pause_ms));
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
    fn a_text_is_bounded_whatever_it_is_and_stays_as_it_is_then(text in "\\PC{0,400}|(\\PC|\\pC){0,80}") {
        let clipped = Clipped::<100>::from(text.as_str());
        prop_assert!(clipped.as_str().len() <= 100);
        prop_assert!(!clipped.as_str().chars().any(|c| c.is_control() && c != '\n'));
        prop_assert_eq!(&Clipped::<100>::from(clipped.as_str()), &clipped);
    }

}

proptest! {
    // What is asked for has to fall into step with the turns to do harm.
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    #[test]
    fn a_critical_job_waits_for_at_most_one_that_is_less_urgent_however_many_there_are(
        before in prop::collection::vec(any_priority(), 0..60),
        begun in 0..40_usize,
        after in prop::collection::vec(prop::collection::vec(any_priority(), 0..3), 1..60),
    ) {
        let mut worker = Worker::default();
        before.into_iter().filter(|it| *it < Priority::Critical).for_each(|it| worker.asked(it));
        for _ in 0..begun {
            worker.begins();
        }
        // It comes while one is running, and more that are less urgent come after it.
        let critical = worker.asked_with_id(Priority::Critical);
        let mut less_urgent = usize::from(worker.last.is_some());
        for more in after {
            more.into_iter().filter(|it| *it < Priority::Critical).for_each(|it| worker.asked(it));
            let Some(begun) = worker.begins() else { break };
            if begun.id == critical {
                break;
            }
            less_urgent += 1;
        }
        prop_assert_eq!(worker.last, Some(critical));
        prop_assert!(less_urgent <= 1, "it waited for {}", less_urgent);
    }

    #[test]
    fn whatever_comes_later_every_job_has_its_turn_after_a_bounded_number_of_others(
        before in prop::collection::vec(any_priority(), 0..12),
        waits in any_priority(),
        after in prop::collection::vec(prop::collection::vec(any_priority(), 1..4), 200),
    ) {
        let mut worker = Worker::default();
        before.iter().for_each(|it| worker.asked(*it));
        let waiting = worker.asked_with_id(waits);
        let bound = (before.len() + 1) * (TURNS_IN_A_ROW as usize + 4);
        let mut others = 0;
        for more in after {
            more.into_iter().for_each(|it| worker.asked(it));
            if worker.begins().is_some_and(|begun| begun.id == waiting) {
                break;
            }
            others += 1;
        }
        prop_assert!(others <= bound, "it waited for {} others", others);
    }
}

fn any_priority() -> impl Strategy<Value = Priority> {
    prop::sample::select(&Priority::ALL[..])
}

/// One worker, who begins a job as soon as the one before has ended.
#[derive(Default)]
struct Worker {
    turns: Turns,
    queue: Vec<Job>,
    asked: u64,
    /// What it did last.
    last: Option<JobId>,
}

impl Worker {
    fn asked(&mut self, priority: Priority) {
        self.asked_with_id(priority);
    }

    fn asked_with_id(&mut self, priority: Priority) -> JobId {
        self.asked += 1;
        self.queue.push(new(self.asked, priority));
        id(self.asked)
    }

    fn begins(&mut self) -> Option<Job> {
        let ready: Vec<&Job> = self.queue.iter().collect();
        let next = self.turns.next(&ready)?.clone();
        self.turns.took(&next, &ready);
        self.queue.retain(|job| job.id != next.id);
        self.last = Some(next.id);
        Some(next)
    }
}

#[test]
fn the_more_urgent_comes_first_and_of_two_the_older() {
    let jobs = [new(1, Priority::Low), new(3, Priority::High), new(2, Priority::High)];
    let ready: Vec<&Job> = jobs.iter().collect();
    assert_eq!(Turns::default().next(&ready).map(|job| job.id), Some(id(2)));
    assert_eq!(Turns::default().next(&[]), None);
}

#[test]
fn what_was_passed_over_is_not_passed_over_again_by_what_is_less_urgent() {
    let mut worker = Worker::default();
    let waiting = worker.asked_with_id(Priority::Normal);
    for _ in 0..TURNS_IN_A_ROW {
        worker.asked(Priority::High);
        assert_eq!(worker.begins().unwrap().priority, Priority::High);
    }
    // Its turn has come, and just now nobody is more urgent.
    worker.asked(Priority::Low);
    assert_eq!(worker.begins().map(|job| job.id), Some(waiting));
}

#[test]
fn a_worker_that_was_replaced_changes_nothing_any_more_and_its_silence_was_a_try() {
    let job = claim(&new(1, Priority::Normal), &"one".into(), 10).unwrap();
    let former = job.running().unwrap().clone();
    let taken = take_over(&job, &"two".into(), 20).unwrap();
    assert_eq!((taken.attempts(), taken.failed[0].attempt.clone()), (2, former.clone()));
    let done = succeed(&taken, &former, Verdict::Clean, "done".into(), 30);
    assert_eq!(done, Err(JobRefused::NotHeld));
    assert_eq!(hand_back(&taken, &former, 30), Err(JobRefused::NotHeld));
    assert_eq!(take_over(&taken, &"two".into(), 40), Err(JobRefused::NotHeld));
}

#[test]
fn a_job_whose_last_worker_falls_silent_is_dead_and_says_why() {
    let mut job = claim(&new(1, Priority::Normal), &"worker 0".into(), 1).unwrap();
    for number in 1..=MAX_ATTEMPTS {
        job = take_over(&job, &format!("worker {number}").into(), 1).unwrap();
    }
    let JobState::Dead { reason, .. } = &job.state else { panic!("{job:?}") };
    assert_eq!(
        reason.as_str(),
        "failed 5 times, at last: its worker fell silent: it was killed, or cut off"
    );
    let again = retry(&job, 2).unwrap();
    assert_eq!((again.attempts(), again.state.name()), (0, "queued"));
}

#[test]
fn what_has_begun_nothing_is_cancelled_at_once_and_what_has_is_given_up_by_a_worker() {
    let job = new(1, Priority::Normal);
    assert_eq!(cancel(&job, 2).unwrap().state, JobState::Cancelled { ended_at_ms: 2 });
    let running = claim(&job, &"one".into(), 3).unwrap();
    let attempt = running.running().unwrap().clone();
    let begun = save(&running, &attempt, JobCheckpoint::of(&2).unwrap(), 4).unwrap();
    let back = cancel(&hand_back(&begun, &attempt, 5).unwrap(), 6).unwrap();
    assert_eq!(back.state, JobState::Queued { not_before_ms: 0, cancelling: true });
    assert_eq!(cancel(&back, 7), Err(JobRefused::Cancelling));
    let again = claim(&back, &"two".into(), 8).unwrap();
    assert!(again.is_cancelling());
    let ended = cancelled(&again, again.running().unwrap(), 9).unwrap();
    assert_eq!(cancel(&ended, 10), Err(JobRefused::Ended("cancelled")));
    assert_eq!(retry(&ended, 10), Err(JobRefused::NotDead("cancelled")));
}

#[test]
fn a_job_that_dies_while_it_is_given_up_is_given_up_by_whoever_retries_it() {
    let running = claim(&new(1, Priority::Normal), &"one".into(), 1).unwrap();
    let attempt = running.running().unwrap().clone();
    let begun = save(&running, &attempt, JobCheckpoint::of(&2).unwrap(), 2).unwrap();
    let cancelling = cancel(&begun, 3).unwrap();
    let parked = park(&cancelling, &attempt, "in vain".into(), 4).unwrap();
    let mut silent = cancelling;
    for number in 1..=MAX_ATTEMPTS {
        silent = take_over(&silent, &format!("worker {number}").into(), 5).unwrap();
    }
    for dead in [parked, silent] {
        assert_eq!((dead.state.name(), dead.is_cancelling()), ("dead", true));
        assert_eq!(cancel(&dead, 6), Err(JobRefused::Ended("dead")));
        let again = retry(&dead, 7).unwrap();
        assert_eq!(again.state, JobState::Queued { not_before_ms: 0, cancelling: true });
    }
}

#[test]
fn what_is_due_at_once_is_due_by_every_clock_and_only_a_pause_after_a_failure_is_timed() {
    // The clock of whoever asks is an hour ahead of the workers'.
    let (ahead_ms, now_ms) = (4_000_000, 400_000);
    let job = claim(&new(ahead_ms, Priority::Normal), &"one".into(), now_ms).unwrap();
    let attempt = job.running().unwrap().clone();
    let back = hand_back(&job, &attempt, ahead_ms).unwrap();
    assert!(claim(&back, &"two".into(), now_ms).is_ok());
    let parked = park(&job, &attempt, "in vain".into(), now_ms).unwrap();
    assert!(claim(&retry(&parked, ahead_ms).unwrap(), &"two".into(), now_ms).is_ok());
    let begun = save(&job, &attempt, JobCheckpoint::of(&2).unwrap(), now_ms).unwrap();
    let failed = fail(&begun, &attempt, "no luck".into(), 0, now_ms).unwrap();
    assert_eq!(claim(&failed, &"two".into(), now_ms), Err(JobRefused::NotDue));
    assert!(claim(&cancel(&failed, ahead_ms).unwrap(), &"two".into(), now_ms).is_ok());
}

#[test]
fn a_flood_of_one_priority_takes_no_room_from_another() {
    let flood: Vec<Job> = (0..MAX_OPEN_JOBS as u64).map(|n| new(n, Priority::Low)).collect();
    let ask = |priority| {
        let (id, asked_by) = (id(999), "an operator".into());
        submit(NewJob { id, kind: JobKind::Audit, priority, asked_by }, &flood, 5)
    };
    assert_eq!(ask(Priority::Low), Err(JobRefused::Full(Priority::Low)));
    assert_eq!(ask(Priority::Critical).unwrap().revision, 1);
}

#[test]
fn only_the_newest_ended_jobs_are_kept_and_those_that_go_on_always() {
    let end = |number: u64| Job {
        state: JobState::Cancelled { ended_at_ms: 1_000 - number },
        ..new(number, Priority::Low)
    };
    let mut jobs: Vec<Job> = (0..KEPT_ENDED_JOBS as u64 + 2).map(end).collect();
    jobs.extend((200..230).map(|number| new(number, Priority::Low)));
    // Nobody has looked at those yet.
    let die = |number: u64| Job {
        state: JobState::Dead {
            ended_at_ms: 900 - number,
            reason: "in vain".into(),
            cancelling: false,
        },
        ..new(number, Priority::Low)
    };
    jobs.extend((300..400).map(die));
    let left = |jobs: &[Job]| surplus(jobs).iter().map(|job| job.id).collect::<Vec<_>>();
    assert_eq!(left(&jobs), [id(100), id(101)]);
    jobs.extend((400..402).map(die));
    assert_eq!(left(&jobs), [id(100), id(101), id(400), id(401)]);
}

#[test]
fn ids_are_of_version_7_and_in_the_order_of_time() {
    let (early, late) = (id(1_795_212_000_000), id(1_795_212_000_001));
    assert!(early < late && early.0.get_version_num() == 7);
    assert_eq!(early.to_string().parse(), Ok(early));
}

#[test]
fn a_name_leads_to_one_id_for_each_who_gives_it() {
    let named = JobId::named("alice", "nightly");
    assert_eq!(named, JobId::named("alice", "nightly"));
    for (who, name) in [("alice", "nightly2"), ("bob", "nightly"), ("alicen", "ightly")] {
        assert_ne!(named, JobId::named(who, name), "{who} {name}");
    }
}

#[test]
fn a_job_is_one_flat_object_and_damage_is_no_job() {
    let job = claim(&new(4, Priority::Critical), &"one".into(), 10).unwrap();
    let value: serde_json::Value = serde_json::from_str(&job.to_json()).unwrap();
    assert_eq!((&value["kind"], &value["dry_run"]), (&"rebuild".into(), &true.into()));
    assert_eq!((&value["state"], &value["worker"]), (&"running".into(), &"one".into()));
    assert_eq!(value["priority"], "critical");
    assert_eq!(Job::from_json(&job.to_json().replace("running", "walking")), None);
    assert_eq!(Job::from_json("{}"), None);
    let letter = Receipt { log: LogNumber::FIRST, partition: PartitionId(3), offset: Offset(1042) };
    for kind in
        [JobKind::ReplayDeadLetter { letter, resume: true }, JobKind::DropDeadLetter { letter }]
    {
        let job = Job { kind, ..job.clone() };
        assert_eq!(Job::from_json(&job.to_json()), Some(job));
    }
}

#[test]
fn a_checkpoint_that_is_too_large_is_a_fault_and_not_half_of_one() {
    assert_eq!(JobCheckpoint::of(&(3, "x")).unwrap().read(), Some((3, "x".to_owned())));
    let large = JobCheckpoint::of(&"x".repeat(9_000));
    assert_eq!(large, Err(CheckpointFault::TooLarge(9_002)));
}
