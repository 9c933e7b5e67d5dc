//! Background jobs: claimed, lost, failed, cancelled and handed back in virtual time; rebuilds whose workers die at every
//! step; and each kind on a whole processor.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod kinds;
#[path = "../support/logs.rs"]
mod logs;
mod mortal;
#[path = "../support/passing.rs"]
mod passing;
mod rebuilds;
#[path = "../support/running.rs"]
mod running;
#[path = "../support/whole.rs"]
mod whole;
mod world;

use std::sync::atomic::Ordering;
use std::time::Duration;

use processor::jobs::LEASE;
use schemas::job::{
    Job, JobId, JobState, LONGEST_BACKOFF_MS, MAX_ATTEMPTS, Priority, TURNS_IN_A_ROW, Verdict,
    cancel, retry,
};
use storage::jobs::change;
use tokio::time::{Instant, sleep};
use world::{World, now_ms};

const SECOND: Duration = Duration::from_secs(1);

fn worker_of(job: &Job) -> &str {
    match &job.state {
        JobState::Succeeded { attempt, .. } => attempt.worker.as_str(),
        state => panic!("it is {state:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_is_done_by_one_of_many_workers_which_says_how_it_comes_on_and_what_came_of_it() {
    let world = World::new(5 * SECOND);
    let _workers: Vec<_> = (0..4).map(|it| world.worker(&format!("worker {it}"))).collect();
    let id = world.ask(Priority::Normal).await;
    let told = world.until(id, |job| job.progress.done == 1).await;
    assert_eq!((told.state.name(), told.progress.line.as_str()), ("running", "half way"));
    let job = world.until(id, Job::is_ended).await;
    let JobState::Succeeded { verdict, result, .. } = &job.state else { panic!("{job:?}") };
    assert_eq!((*verdict, result.as_str()), (Verdict::Different, "two differences"));
    assert_eq!((job.attempts(), world.order()), (1, vec![id]));
    let different =
        "allocator_processor_job_attempts_total{kind=\"audit\",outcome=\"different\"} 1";
    assert!(world.shows(different));
}

#[tokio::test(start_paused = true)]
async fn everybody_shows_for_how_long_the_oldest_job_has_waited_and_run() {
    let world = World::new(100 * SECOND);
    let running = world.ask(Priority::Low).await;
    let _worker = world.worker("one");
    world.until_it_runs(running).await;
    sleep(10 * SECOND).await;
    world.ask(Priority::High).await;
    sleep(5 * SECOND).await;
    world.ask(Priority::High).await;
    sleep(20 * SECOND).await;
    let shows = |state: &str, priority: &str, seconds: std::ops::Range<u64>| {
        let sample = format!(
            "allocator_processor_job_oldest_seconds{{priority=\"{priority}\",state=\"{state}\"}}"
        );
        seconds.into_iter().any(|seconds| world.shows(&format!("{sample} {seconds}")))
    };
    assert!(shows("running", "low", 33..37) && shows("queued", "high", 23..27));
    assert!(shows("running", "high", 0..1) && shows("queued", "low", 0..1));
    assert!(world.shows("allocator_processor_jobs{state=\"unreadable\"} 0"));
    world.place.away.store(true, Ordering::Relaxed);
    sleep(3 * SECOND).await;
    assert!(!shows("queued", "high", 0..100), "nobody knows");
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_is_killed_is_noticed_and_another_one_goes_on() {
    let world = World::new(30 * SECOND);
    let one = world.worker("one");
    let id = world.ask(Priority::Normal).await;
    world.until_it_runs(id).await;
    let _two = world.worker("two");
    // As long as it lives nobody takes it away, however long it takes.
    sleep(LEASE * 2).await;
    assert_eq!(world.order(), [id]);
    one.task.abort();
    let killed = Instant::now();
    world.until(id, |job| job.failed.len() == 1).await;
    assert!((LEASE..LEASE + 4 * SECOND).contains(&killed.elapsed()), "{:?}", killed.elapsed());
    let job = world.until(id, Job::is_ended).await;
    assert_eq!((worker_of(&job), job.attempts()), ("two", 2));
    assert_eq!(job.failed[0].attempt.worker.as_str(), "one");
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_low_jobs_delays_a_critical_one_by_one_of_them_and_all_are_done_in_the_end() {
    let world = World::new(SECOND);
    let mut low = Vec::new();
    for _ in 0..60 {
        low.push(world.ask(Priority::Low).await);
    }
    let worker = world.worker("one");
    for round in 1..=5 {
        sleep(3 * SECOND + Duration::from_millis(100 * round)).await;
        let begun = world.order().len();
        let critical = world.ask(Priority::Critical).await;
        world.until(critical, Job::is_ended).await;
        let order = world.order();
        let before = order[begun..].iter().position(|id| *id == critical).unwrap();
        // The one that ran when it came was counted before.
        assert_eq!(before, 0, "{order:?}");
    }
    for id in &low {
        world.until(*id, Job::is_ended).await;
    }
    let done = world.order().into_iter().filter(|id| low.contains(id)).collect::<Vec<JobId>>();
    assert_eq!(done.len(), 60, "each of them once");
    worker.stop.cancel();
    worker.task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_low_job_has_its_turn_although_there_are_always_more_urgent_ones() {
    let world = World::new(SECOND);
    let low = world.ask(Priority::Low).await;
    for _ in 0..20 {
        world.ask(Priority::Critical).await;
    }
    let _worker = world.worker("one");
    world.until(low, Job::is_ended).await;
    let place = world.order().iter().position(|id| *id == low).unwrap();
    assert_eq!(place, TURNS_IN_A_ROW as usize);
}

#[tokio::test(start_paused = true)]
async fn a_job_that_fails_is_tried_again_later_and_later_and_is_dead_after_the_last_time() {
    let world = World::new(SECOND);
    world.work.fails.store(MAX_ATTEMPTS as u32, Ordering::Relaxed);
    let _worker = world.worker("one");
    let id = world.ask(Priority::Normal).await;
    let job = world.until(id, Job::is_ended).await;
    let JobState::Dead { reason, .. } = &job.state else { panic!("{job:?}") };
    assert_eq!(reason.as_str(), "failed 5 times, at last: no luck");
    assert_eq!((job.attempts(), world.order().len()), (MAX_ATTEMPTS, MAX_ATTEMPTS));
    let begun: Vec<_> = world.work.begun.lock().unwrap().iter().map(|(_, at)| *at).collect();
    let pauses: Vec<_> = begun.windows(2).map(|pair| pair[1] - pair[0]).collect();
    // The first is 2.5 to 5 s; each has twice the room of the one before. A look comes at most a second later.
    for (doublings, pause) in (0..).zip(&pauses) {
        let longest =
            Duration::from_secs(5 << doublings).min(Duration::from_millis(LONGEST_BACKOFF_MS));
        let bounds = SECOND + longest / 2..=longest + 3 * SECOND;
        assert!(bounds.contains(pause), "{pauses:?}");
    }
    sleep(2 * SECOND).await;
    assert!(world.shows("allocator_processor_jobs{state=\"dead\"} 1"));
    for outcome in ["failed\"} 4", "dead\"} 1"] {
        let sample = "allocator_processor_job_attempts_total{kind=\"audit\",outcome=\"";
        assert!(world.shows(&format!("{sample}{outcome}")), "{outcome}");
    }

    change(world.place.as_ref(), id, |job| retry(job, now_ms())).await.unwrap();
    let job = world.until(id, Job::is_ended).await;
    assert_eq!((worker_of(&job), job.attempts()), ("one", 1));
}

#[tokio::test(start_paused = true)]
async fn a_job_that_panics_has_failed_and_its_worker_goes_on() {
    let world = World::new(SECOND);
    world.work.panics.store(true, Ordering::Relaxed);
    let _worker = world.worker("one");
    let id = world.ask(Priority::Normal).await;
    let job = world.until(id, Job::is_ended).await;
    assert_eq!((worker_of(&job), job.attempts()), ("one", 2));
    assert_eq!(job.failed[0].error.as_str(), "a bug: it panicked, see the log");
}

#[tokio::test(start_paused = true)]
async fn a_job_that_is_cancelled_while_it_runs_ends_soon_and_gives_up_what_it_began() {
    let world = World::new(3_600 * SECOND);
    let _worker = world.worker("one");
    let id = world.ask(Priority::Normal).await;
    world.until_it_runs(id).await;
    change(world.place.as_ref(), id, |job| cancel(job, now_ms())).await.unwrap();
    let asked = Instant::now();
    let job = world.until(id, Job::is_ended).await;
    assert!(matches!(job.state, JobState::Cancelled { .. }), "{job:?}");
    assert!(asked.elapsed() < 5 * SECOND, "{:?}", asked.elapsed());
    assert_eq!(*world.work.given_up.lock().unwrap(), [id]);
    assert_eq!(world.work.on.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn what_somebody_who_was_killed_had_begun_is_given_up_by_another_if_it_is_cancelled() {
    let world = World::new(3_600 * SECOND);
    let one = world.worker("one");
    let id = world.ask(Priority::Normal).await;
    world.until_it_runs(id).await;
    one.task.abort();
    change(world.place.as_ref(), id, |job| cancel(job, now_ms())).await.unwrap();
    let _two = world.worker("two");
    let job = world.until(id, Job::is_ended).await;
    assert!(matches!(job.state, JobState::Cancelled { .. }), "{job:?}");
    assert_eq!((world.order(), world.work.given_up.lock().unwrap().clone()), (vec![id], vec![id]));
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_has_to_end_hands_its_job_back_and_that_is_no_failure() {
    let world = World::new(20 * SECOND);
    let one = world.worker("one");
    let id = world.ask(Priority::Normal).await;
    world.until_it_runs(id).await;
    one.stop.cancel();
    one.task.await.unwrap();
    let job = world.job(id).await;
    assert_eq!((job.state.name(), job.attempts()), ("queued", 0));
    let (_two, began) = (world.worker("two"), Instant::now());
    let job = world.until(id, Job::is_ended).await;
    assert_eq!((worker_of(&job), job.attempts()), ("two", 1));
    assert!(began.elapsed() < 25 * SECOND, "nobody waited for a lease: {:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_cannot_say_that_it_lives_stops_before_another_may_begin_and_goes_on_later() {
    let world = World::new(3_600 * SECOND);
    let _worker = world.worker("one");
    let id = world.ask(Priority::Normal).await;
    world.until_it_runs(id).await;
    world.place.away.store(true, Ordering::Relaxed);
    sleep(LEASE).await;
    assert_eq!(world.work.on.load(Ordering::Relaxed), 0);
    sleep(60 * SECOND).await;
    assert!(!world.shows("allocator_processor_jobs{state=\"running\"} 1"), "nobody knows");
    world.place.away.store(false, Ordering::Relaxed);
    while world.order().len() < 2 {
        sleep(SECOND).await;
    }
    let job = world.job(id).await;
    assert_eq!((job.running().unwrap().worker.as_str(), job.attempts()), ("one", 1));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_keeps_no_worker_from_ending() {
    let world = World::new(3_600 * SECOND);
    let one = world.worker("one");
    let id = world.ask(Priority::Normal).await;
    world.until_it_runs(id).await;
    world.place.away.store(true, Ordering::Relaxed);
    one.stop.cancel();
    let asked = Instant::now();
    one.task.await.unwrap();
    assert!(asked.elapsed() < 5 * SECOND, "{:?}", asked.elapsed());
    // Whoever sees that it stands still goes on.
    world.place.away.store(false, Ordering::Relaxed);
    let _two = world.worker("two");
    let job = world.until(id, |job| job.failed.len() == 1).await;
    assert_eq!(job.running().unwrap().worker.as_str(), "two");
}
