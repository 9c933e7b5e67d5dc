//! When a job may annul or restore people: one job of a budget at a time, and no processor of an earlier release.

use std::sync::Arc;
use std::time::Duration;

use operations::jobs::{
    JobExecutorDeps, JobExecutors, JobMetrics, JobWorker, JobWorkerDeps, LEASE_DURATION, ScanTurns,
};
use runtime::clock::now_ms;
use runtime::metrics::Metrics;
use schemas::job::{self, Job, JobId, JobProgress, JobState, NewJob, Priority, Verdict};
use schemas::{AnnulmentChange, AnnulmentLock};
use storage::control::{AnnulmentRegisters, ControlTopic};
use storage::jobs::JobStore;
use storage::log::LogReader;
use storage::signals::SqliteSignalReader;
use storage::store::{CasOutcome, Checkpoints, Epoch, Generations};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::annulments::{
    RECORDS, annul, check_totals, control, effect_of, entry, records, request, restore, roads,
    settle, world,
};
use crate::fixture::Fixture;
use crate::kinds::{submit_job, wait_until};
use crate::single_log::SingleLogOpener;

/// Returns a running job of a worker of another process.
async fn job_of_another_worker(fixture: &Fixture) -> Job {
    let id = JobId::new(1, Uuid::new_v4());
    let (priority, requested_by) = (Priority::Normal, "an operator".into());
    let new = NewJob { id, kind: restore(7, false), priority, requested_by };
    let queued = job::submit(new, &[], 1).unwrap();
    let mut running = job::claim(&queued, &"another worker".into(), 1).unwrap();
    running.revision = 1;
    assert_eq!(fixture.store.change_job(&running).await, Ok(CasOutcome::Applied));
    running
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_of_a_budget_wait_for_one_of_another_worker_until_that_worker_is_dead() {
    let mut fixture = world().await;
    effect_of(&fixture, annul(request(1, &[0, 2]))).await;
    settle(&fixture, 2).await;
    let mut other = job_of_another_worker(&fixture).await;
    let holder = AnnulmentLock { job: other.id, token: Uuid::new_v4() };
    let change = AnnulmentChange::Lock { holder, replaces: None };
    control(&fixture).change_annulments(&roads(), &change).await.unwrap();
    let waiting = [annul(request(2, &[4])), restore(1, false)];
    let mut jobs = Vec::new();
    for kind in waiting {
        jobs.push(submit_job(&fixture, kind).await);
    }
    let until = Instant::now() + LEASE_DURATION + Duration::from_secs(3);
    let mut has_waited = false;
    while Instant::now() < until {
        let attempt = other.running().unwrap();
        let renewed = job::report_progress(&other, attempt, JobProgress::default(), 1).unwrap();
        assert_eq!(fixture.store.change_job(&renewed).await, Ok(CasOutcome::Applied));
        other = renewed;
        for id in &jobs {
            let waiting = fixture.store.job(*id).await.unwrap().unwrap();
            assert!(!waiting.is_ended() && waiting.failed_attempts.is_empty(), "{waiting:?}");
            let waits = format!("waits for job {} of the same budget", other.id);
            has_waited |= waiting.progress.message.as_str() == waits;
        }
        sleep(Duration::from_millis(200)).await;
    }
    assert!(has_waited);
    assert_eq!(records(&fixture).await, RECORDS + 2);
    // From here on, nobody renews the lease.
    for id in jobs {
        let ended = wait_until(&fixture, id, Job::is_ended).await;
        assert_eq!(ended.state.name(), "succeeded");
    }
    settle(&fixture, 3).await;
    check_totals(&fixture, &[4]).await;
    fixture.stop_processor().await;
}

/// Runs a job by a worker without a processor, until the job has ended.
async fn run_without_processor(fixture: &Fixture, id: JobId) -> Job {
    let reader: Arc<dyn LogReader> = Arc::new(fixture.reader());
    let logs = SingleLogOpener { with_archive: Arc::clone(&reader), without_archive: reader };
    let control = ControlTopic::new(control(fixture));
    let executor = JobExecutors::new(JobExecutorDeps {
        logs: Arc::new(logs),
        store: Arc::clone(&fixture.store) as _,
        cache: Arc::clone(&fixture.cache),
        definitions: control.definitions,
        dead_letter_journal: Arc::new(fixture.dead_letter_journal()),
        writer: Arc::clone(&fixture.writer),
        annulments: control.annulments,
        signals: Arc::new(SqliteSignalReader::new(&fixture.dir.path().join("signals.db"))),
        archive_dir: None,
        exports: fixture.exports(),
    });
    let worker = JobWorker::new(JobWorkerDeps {
        jobs: Arc::clone(&fixture.store) as _,
        executor: Arc::new(executor),
        name: "a worker without a processor".into(),
        metrics: JobMetrics::new(&Metrics::new("test")).unwrap(),
        now_ms,
        turns: ScanTurns::every_second(),
    });
    let stop = CancellationToken::new();
    let running = tokio::spawn(worker.run(stop.clone()));
    let ended = wait_until(fixture, id, Job::is_ended).await;
    stop.cancel();
    running.await.unwrap();
    ended
}

#[tokio::test(flavor = "multi_thread")]
async fn an_annulment_is_refused_while_a_processor_of_an_earlier_release_owns_a_partition() {
    let mut fixture = world().await;
    fixture.stop_processor().await;
    let (id, stored) = (fixture.id(0).await, fixture.stored(0).await);
    let next = Epoch(stored.epoch.0 + 1);
    let claimed = fixture.store.claim(id, Some(stored.epoch), next, "4711-0193").await;
    assert_eq!(claimed, Ok(CasOutcome::Applied));
    let job = submit_job(&fixture, annul(request(1, &[0]))).await;
    let ended = run_without_processor(&fixture, job).await;
    let JobState::Succeeded { verdict: Verdict::Incomplete, result, .. } = ended.state else {
        panic!("{ended:?}")
    };
    let refusal = "refused: 1 partitions are owned by processors of an earlier release";
    assert!(result.as_str().starts_with(refusal), "{result}");
    assert_eq!(entry(&fixture, 1).await, None);
    let registry = fixture.store.registry().await.unwrap().unwrap();
    assert_eq!((registry.active.fold_version, records(&fixture).await), (1, RECORDS));
    fixture.start_processor().await;
    let deadline = Instant::now() + Duration::from_secs(60);
    while fixture.stored(0).await.owner == "4711-0193" {
        assert!(Instant::now() < deadline, "this release does not claim the partition");
        sleep(Duration::from_millis(10)).await;
    }
    effect_of(&fixture, annul(request(1, &[0]))).await;
    settle(&fixture, 1).await;
    check_totals(&fixture, &[0]).await;
    fixture.stop_processor().await;
}
