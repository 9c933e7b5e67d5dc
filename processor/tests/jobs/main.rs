//! Background jobs: claims, lost leases, failures, cancellations and releases in virtual time; rebuilds whose workers
//! die at every step; and each kind of job on a whole processor.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod annulment_order;
mod annulments;
#[path = "../support/fixture.rs"]
mod fixture;
mod kinds;
mod rebuilds;
#[path = "../support/running_processor.rs"]
mod running_processor;
#[path = "../support/single_log.rs"]
mod single_log;
mod stalling_store;
mod world;

use std::sync::atomic::Ordering;
use std::time::Duration;

use operations::jobs::LEASE_DURATION;
use schemas::job::{
    Job, JobId, JobState, MAX_ATTEMPTS, MAX_BACKOFF_MS, MAX_CONSECUTIVE_BYPASSES, Priority,
    Verdict, cancel, retry,
};
use storage::jobs::update_job;
use tokio::time::{Instant, sleep};
use world::{World, now_ms};

const SECOND: Duration = Duration::from_secs(1);

fn worker_of(job: &Job) -> &str {
    match &job.state {
        JobState::Succeeded { attempt, .. } => attempt.worker.as_str(),
        state => panic!("the job is {state:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn one_of_many_workers_executes_a_job_and_reports_progress_and_result() {
    let world = World::new(5 * SECOND);
    let _workers: Vec<_> = (0..4).map(|it| world.worker(&format!("worker {it}"))).collect();
    let id = world.submit_job(Priority::Normal).await;
    let running = world.wait_until(id, |job| job.progress.done == 1).await;
    assert_eq!((running.state.name(), running.progress.message.as_str()), ("running", "half way"));
    let job = world.wait_until(id, Job::is_ended).await;
    let JobState::Succeeded { verdict, result, .. } = &job.state else { panic!("{job:?}") };
    assert_eq!((*verdict, result.as_str()), (Verdict::Different, "two differences"));
    assert_eq!((job.attempts(), world.start_order()), (1, vec![id]));
    let different =
        "allocator_processor_job_attempts_total{kind=\"audit\",outcome=\"different\"} 1";
    assert!(world.exposes(different));
}

#[tokio::test(start_paused = true)]
async fn the_cost_of_idle_workers_does_not_grow_with_their_number() {
    for count in [1, 3, 24] {
        let world = World::new(SECOND);
        let _workers = world.sharing_workers(count);
        sleep(59 * SECOND).await;
        // Each worker scans once when it starts.
        let scans = world.jobs.scans.load(Ordering::Relaxed) - count;
        assert!((55..=62).contains(&scans), "{scans} scans of {count} workers in a minute");
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_starts_soon_however_many_workers_share_the_scans() {
    for count in [1, 3, 24] {
        let world = World::new(SECOND);
        let _workers = world.sharing_workers(count);
        for round in 0..10 {
            sleep(7 * SECOND + Duration::from_millis(130 * round)).await;
            let (id, submitted) = (world.submit_job(Priority::Normal).await, Instant::now());
            world.wait_until_running(id).await;
            assert!(submitted.elapsed() < 2 * SECOND, "{count}: {:?}", submitted.elapsed());
            world.wait_until(id, Job::is_ended).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_job_of_a_killed_worker_is_taken_over_by_one_that_shares_the_scans() {
    let world = World::new(60 * SECOND);
    let workers = world.sharing_workers(3);
    let id = world.submit_job(Priority::Normal).await;
    let job = world.wait_until_running(id).await;
    // The idle workers do not watch a job whose lease is renewed.
    let before = world.jobs.scans.load(Ordering::Relaxed);
    sleep(30 * SECOND).await;
    let scans = world.jobs.scans.load(Ordering::Relaxed) - before;
    assert!(scans <= 35, "{scans} scans in 30 s");
    assert_eq!(world.start_order(), [id]);
    let worker = job.running().unwrap().worker.as_str().to_owned();
    let number: usize = worker.strip_prefix("worker ").unwrap().parse().unwrap();
    workers[number].task.abort();
    let killed = Instant::now();
    let job = world.wait_until(id, |job| job.failed_attempts.len() == 1).await;
    assert_ne!(job.running().unwrap().worker.as_str(), worker);
    let latest = LEASE_DURATION + 17 * SECOND;
    assert!((LEASE_DURATION..latest).contains(&killed.elapsed()), "{:?}", killed.elapsed());
}

#[tokio::test(start_paused = true)]
async fn metrics_show_the_age_of_the_oldest_job_by_state_and_priority() {
    let world = World::new(100 * SECOND);
    let running = world.submit_job(Priority::Low).await;
    let _worker = world.worker("one");
    world.wait_until_running(running).await;
    sleep(10 * SECOND).await;
    world.submit_job(Priority::High).await;
    sleep(5 * SECOND).await;
    world.submit_job(Priority::High).await;
    sleep(20 * SECOND).await;
    let shows = |state: &str, priority: &str, seconds: std::ops::Range<u64>| {
        let sample = format!(
            "allocator_processor_job_oldest_seconds{{priority=\"{priority}\",state=\"{state}\"}}"
        );
        seconds.into_iter().any(|seconds| world.exposes(&format!("{sample} {seconds}")))
    };
    assert!(shows("running", "low", 33..37) && shows("queued", "high", 23..27));
    assert!(shows("running", "high", 0..1) && shows("queued", "low", 0..1));
    assert!(world.exposes("allocator_processor_jobs{state=\"unreadable\"} 0"));
    world.jobs.unavailable.store(true, Ordering::Relaxed);
    sleep(3 * SECOND).await;
    assert!(!shows("queued", "high", 0..100), "the state of the jobs is unknown");
}

#[tokio::test(start_paused = true)]
async fn the_job_of_a_killed_worker_is_taken_over_after_its_lease() {
    let world = World::new(30 * SECOND);
    let one = world.worker("one");
    let id = world.submit_job(Priority::Normal).await;
    world.wait_until_running(id).await;
    let _two = world.worker("two");
    // A job whose worker is alive is not taken over, however long it runs.
    sleep(LEASE_DURATION * 2).await;
    assert_eq!(world.start_order(), [id]);
    one.task.abort();
    let killed = Instant::now();
    world.wait_until(id, |job| job.failed_attempts.len() == 1).await;
    assert!(
        (LEASE_DURATION..LEASE_DURATION + 4 * SECOND).contains(&killed.elapsed()),
        "{:?}",
        killed.elapsed()
    );
    let job = world.wait_until(id, Job::is_ended).await;
    assert_eq!((worker_of(&job), job.attempts()), ("two", 2));
    assert_eq!(job.failed_attempts[0].attempt.worker.as_str(), "one");
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_low_jobs_delays_a_critical_job_by_at_most_one_and_all_are_executed() {
    let world = World::new(SECOND);
    let mut low = Vec::new();
    for _ in 0..60 {
        low.push(world.submit_job(Priority::Low).await);
    }
    let worker = world.worker("one");
    for round in 1..=5 {
        sleep(3 * SECOND + Duration::from_millis(100 * round)).await;
        let begun = world.start_order().len();
        let critical = world.submit_job(Priority::Critical).await;
        world.wait_until(critical, Job::is_ended).await;
        let order = world.start_order();
        let before = order[begun..].iter().position(|id| *id == critical).unwrap();
        // The job that was running at the submission is before `begun`.
        assert_eq!(before, 0, "{order:?}");
    }
    for id in &low {
        world.wait_until(*id, Job::is_ended).await;
    }
    let done =
        world.start_order().into_iter().filter(|id| low.contains(id)).collect::<Vec<JobId>>();
    assert_eq!(done.len(), 60, "each low job runs once");
    worker.stop.cancel();
    worker.task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_low_job_does_not_starve_behind_more_urgent_jobs() {
    let world = World::new(SECOND);
    let low = world.submit_job(Priority::Low).await;
    for _ in 0..20 {
        world.submit_job(Priority::Critical).await;
    }
    let _worker = world.worker("one");
    world.wait_until(low, Job::is_ended).await;
    let index = world.start_order().iter().position(|id| *id == low).unwrap();
    assert_eq!(index, MAX_CONSECUTIVE_BYPASSES as usize);
}

#[tokio::test(start_paused = true)]
async fn a_failing_job_is_retried_with_growing_backoff_and_dead_after_the_last_attempt() {
    let world = World::new(SECOND);
    world.work.failures_left.store(MAX_ATTEMPTS as u32, Ordering::Relaxed);
    let _worker = world.worker("one");
    let id = world.submit_job(Priority::Normal).await;
    let job = world.wait_until(id, Job::is_ended).await;
    let JobState::Dead { reason, .. } = &job.state else { panic!("{job:?}") };
    assert_eq!(reason.as_str(), "failed 5 times, last error: a transient failure");
    assert_eq!((job.attempts(), world.start_order().len()), (MAX_ATTEMPTS, MAX_ATTEMPTS));
    let starts: Vec<_> = world.work.starts.lock().iter().map(|(_, at)| *at).collect();
    let pauses: Vec<_> = starts.windows(2).map(|pair| pair[1] - pair[0]).collect();
    // The first backoff is 2.5 to 5 s and its bounds double each time. The next scan is at most a second later.
    for (doublings, pause) in (0..).zip(&pauses) {
        let longest =
            Duration::from_secs(5 << doublings).min(Duration::from_millis(MAX_BACKOFF_MS));
        let bounds = SECOND + longest / 2..=longest + 3 * SECOND;
        assert!(bounds.contains(pause), "{pauses:?}");
    }
    sleep(2 * SECOND).await;
    assert!(world.exposes("allocator_processor_jobs{state=\"dead\"} 1"));
    for outcome in ["failed\"} 4", "dead\"} 1"] {
        let sample = "allocator_processor_job_attempts_total{kind=\"audit\",outcome=\"";
        assert!(world.exposes(&format!("{sample}{outcome}")), "{outcome}");
    }

    update_job(world.jobs.as_ref(), id, |job| retry(job, now_ms())).await.unwrap();
    let job = world.wait_until(id, Job::is_ended).await;
    assert_eq!((worker_of(&job), job.attempts()), ("one", 1));
}

#[tokio::test(start_paused = true)]
async fn a_panic_fails_the_attempt_and_its_worker_continues() {
    let world = World::new(SECOND);
    world.work.panics.store(true, Ordering::Relaxed);
    let _worker = world.worker("one");
    let id = world.submit_job(Priority::Normal).await;
    let job = world.wait_until(id, Job::is_ended).await;
    assert_eq!((worker_of(&job), job.attempts()), ("one", 2));
    assert_eq!(job.failed_attempts[0].error.as_str(), "the job panicked, see the log");
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_running_job_ends_soon_and_undoes_what_it_began() {
    let world = World::new(3_600 * SECOND);
    let _worker = world.worker("one");
    let id = world.submit_job(Priority::Normal).await;
    world.wait_until_running(id).await;
    update_job(world.jobs.as_ref(), id, |job| cancel(job, now_ms())).await.unwrap();
    let requested = Instant::now();
    let job = world.wait_until(id, Job::is_ended).await;
    assert!(matches!(job.state, JobState::Cancelled { .. }), "{job:?}");
    assert!(requested.elapsed() < 5 * SECOND, "{:?}", requested.elapsed());
    assert_eq!(*world.work.aborted.lock(), [id]);
    assert_eq!(world.work.running.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_job_of_a_killed_worker_is_undone_by_another_worker() {
    let world = World::new(3_600 * SECOND);
    let one = world.worker("one");
    let id = world.submit_job(Priority::Normal).await;
    world.wait_until_running(id).await;
    one.task.abort();
    update_job(world.jobs.as_ref(), id, |job| cancel(job, now_ms())).await.unwrap();
    let _two = world.worker("two");
    let job = world.wait_until(id, Job::is_ended).await;
    assert!(matches!(job.state, JobState::Cancelled { .. }), "{job:?}");
    assert_eq!((world.start_order(), world.work.aborted.lock().clone()), (vec![id], vec![id]));
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_shuts_down_releases_its_job_without_a_failed_attempt() {
    let world = World::new(20 * SECOND);
    let one = world.worker("one");
    let id = world.submit_job(Priority::Normal).await;
    world.wait_until_running(id).await;
    one.stop.cancel();
    one.task.await.unwrap();
    let job = world.job(id).await;
    assert_eq!((job.state.name(), job.attempts()), ("queued", 0));
    let (_two, began) = (world.worker("two"), Instant::now());
    let job = world.wait_until(id, Job::is_ended).await;
    assert_eq!((worker_of(&job), job.attempts()), ("two", 1));
    assert!(began.elapsed() < 25 * SECOND, "no worker waited for a lease: {:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_cannot_renew_its_lease_stops_before_a_takeover_and_resumes_later() {
    let world = World::new(3_600 * SECOND);
    let _worker = world.worker("one");
    let id = world.submit_job(Priority::Normal).await;
    world.wait_until_running(id).await;
    world.jobs.unavailable.store(true, Ordering::Relaxed);
    sleep(LEASE_DURATION).await;
    assert_eq!(world.work.running.load(Ordering::Relaxed), 0);
    sleep(60 * SECOND).await;
    assert!(
        !world.exposes("allocator_processor_jobs{state=\"running\"} 1"),
        "the state of the jobs is unknown"
    );
    world.jobs.unavailable.store(false, Ordering::Relaxed);
    while world.start_order().len() < 2 {
        sleep(SECOND).await;
    }
    let job = world.job(id).await;
    assert_eq!((job.running().unwrap().worker.as_str(), job.attempts()), ("one", 1));
}

#[tokio::test(start_paused = true)]
async fn an_unavailable_store_does_not_delay_the_shutdown_of_a_worker() {
    let world = World::new(3_600 * SECOND);
    let one = world.worker("one");
    let id = world.submit_job(Priority::Normal).await;
    world.wait_until_running(id).await;
    world.jobs.unavailable.store(true, Ordering::Relaxed);
    one.stop.cancel();
    let requested = Instant::now();
    one.task.await.unwrap();
    assert!(requested.elapsed() < 5 * SECOND, "{:?}", requested.elapsed());
    // Another worker takes the job over once its lease has expired.
    world.jobs.unavailable.store(false, Ordering::Relaxed);
    let _two = world.worker("two");
    let job = world.wait_until(id, |job| job.failed_attempts.len() == 1).await;
    assert_eq!(job.running().unwrap().worker.as_str(), "two");
}
