//! The worker loop: scans all jobs in its turns, claims the next ready one, executes it and stores its end. One job at
//! a time.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use schemas::job::{self, Attempt, FairQueue, Job, JobName, JobState, JobTransitionError};
use storage::jobs::{JobStore, delete_expired};
use storage::store::{CasOutcome, StoreError};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::lease::{JobLease, LEASE_DURATION, NowMs};
use super::metrics::{AttemptOutcome, JobMetrics};
use super::scanner::{JobScanner, SCAN_INTERVAL};
use super::{JobExecutor, JobFailure, JobOutcome, ScanTurns};

/// How long releasing a job may delay the process's shutdown. Otherwise the end of a job has [`LEASE_DURATION`].
const RELEASE_TIMEOUT: Duration = Duration::from_secs(3);

/// Dependencies of a [`JobWorker`].
pub struct JobWorkerDeps {
    /// The jobs.
    pub jobs: Arc<dyn JobStore>,
    /// Executes them.
    pub executor: Arc<dyn JobExecutor>,
    /// The worker's name, unique over all processes and restarts.
    pub name: JobName,
    /// The metrics.
    pub metrics: JobMetrics,
    /// The clock for backoff times, displayed times and turns.
    pub now_ms: NowMs,
    /// When this worker scans the jobs.
    pub turns: ScanTurns,
}

/// Executes jobs, one at a time.
pub struct JobWorker {
    jobs: Arc<dyn JobStore>,
    executor: Arc<dyn JobExecutor>,
    name: JobName,
    metrics: JobMetrics,
    now_ms: NowMs,
    scanner: JobScanner,
    queue: FairQueue,
}

/// How an attempt ended in this process.
enum AttemptEnd {
    Finished(Result<JobOutcome, JobFailure>),
    Aborted(Result<Option<JobOutcome>, JobFailure>),
    Stopped,
}

/// The result of trying to claim a job.
enum ClaimAttempt {
    Claimed(Box<JobLease>),
    /// Another worker changed the job first: scan again.
    Conflict,
    NothingReady,
}

impl JobWorker {
    /// Creates an idle worker.
    pub fn new(deps: JobWorkerDeps) -> Self {
        let JobWorkerDeps { jobs, executor, name, metrics, now_ms, turns } = deps;
        let scanner =
            JobScanner::new(Arc::clone(&jobs), name.clone(), metrics.clone(), now_ms, turns);
        Self { jobs, executor, name, metrics, now_ms, scanner, queue: FairQueue::default() }
    }

    /// Executes jobs until `stop` is cancelled. An unfinished job is released then.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut ticks = interval(SCAN_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            if !self.scanner.is_due() {
                continue;
            }
            while !stop.is_cancelled() {
                match self.claim_next(&stop).await {
                    Ok(ClaimAttempt::Claimed(lease)) => self.execute(&lease, &stop).await,
                    Ok(ClaimAttempt::Conflict) => {}
                    Ok(ClaimAttempt::NothingReady) => break,
                    Err(error) => {
                        tracing::warn!(%error, "failed to scan or claim background jobs");
                        self.scanner.scan_soon();
                        break;
                    }
                }
            }
        }
    }

    /// Claims the next ready job.
    async fn claim_next(&mut self, stop: &CancellationToken) -> Result<ClaimAttempt, StoreError> {
        let Some(jobs) = stop.run_until_cancelled(self.scanner.scan()).await else {
            return Ok(ClaimAttempt::NothingReady);
        };
        let (jobs, now_ms) = (jobs?, (self.now_ms)());
        let is_mine = |job: &&Job| {
            job.is_understood() && job.running().is_some_and(|it| it.worker == self.name)
        };
        if let Some(mine) = jobs.iter().find(is_mine) {
            let resuming = self.resume_own(mine.clone());
            return Ok(stop
                .run_until_cancelled(resuming)
                .await
                .unwrap_or(ClaimAttempt::NothingReady));
        }
        let ready: Vec<&Job> =
            jobs.iter().filter(|job| self.scanner.is_ready(job, now_ms)).collect();
        let Some(chosen) = self.queue.pick(&ready) else { return Ok(ClaimAttempt::NothingReady) };
        let claimed = match chosen.state {
            JobState::Running { .. } => job::take_over(chosen, &self.name, now_ms),
            _ => job::claim(chosen, &self.name, now_ms),
        };
        // The claim replaces exactly the scanned revision.
        let Ok(claimed) = claimed else { return Ok(ClaimAttempt::NothingReady) };
        if self.jobs.change_job(&claimed).await? == CasOutcome::Refused {
            return Ok(ClaimAttempt::Conflict);
        }
        self.queue.record_start(chosen, &ready);
        let (id, kind, attempt) = (claimed.id, &claimed.kind, claimed.attempts());
        if let JobState::Dead { reason, .. } = &claimed.state {
            tracing::error!(job = %id, %kind, %reason, "job is dead");
            self.metrics.ended(kind, AttemptOutcome::Dead, Duration::ZERO);
            delete_expired(self.jobs.as_ref()).await;
            return Ok(ClaimAttempt::Conflict);
        }
        let taken_over = chosen.running().map(|former| former.worker.as_str());
        tracing::info!(job = %id, %kind, priority = %claimed.priority, attempt, taken_over, "job claimed");
        Ok(self.hold(claimed))
    }

    /// Resumes a job that this process runs according to the store: the response to its claim, or to its end, was lost.
    async fn resume_own(&self, mine: Job) -> ClaimAttempt {
        let ClaimAttempt::Claimed(lease) = self.hold(mine) else {
            return ClaimAttempt::NothingReady;
        };
        match lease.heartbeat().await {
            Ok(()) => ClaimAttempt::Claimed(lease),
            Err(error) => {
                tracing::debug!(job = %lease.job().id, %error, "job lease lost before the job was resumed");
                self.scanner.scan_soon();
                ClaimAttempt::NothingReady
            }
        }
    }

    fn hold(&self, job: Job) -> ClaimAttempt {
        let lease = JobLease::new(Arc::clone(&self.jobs), job, self.now_ms);
        lease.map_or(ClaimAttempt::NothingReady, |lease| ClaimAttempt::Claimed(Box::new(lease)))
    }

    /// Executes a job. Stops when the job ends or is cancelled, its lease is lost, or the process stops.
    async fn execute(&self, lease: &JobLease, stop: &CancellationToken) {
        let (began, kind) = (Instant::now(), lease.kind());
        let executor = self.executor.as_ref();
        let working = async {
            tokio::select! {
                biased;
                () = lease.cancelling() => {}
                ran = catch_panic(executor.run(lease)) => return AttemptEnd::Finished(ran),
            }
            AttemptEnd::Aborted(catch_panic(executor.abort(lease)).await)
        };
        let end = tokio::select! {
            biased;
            () = lease.keep_heartbeating() => AttemptEnd::Finished(Err(JobFailure::LeaseLost)),
            () = stop.cancelled() => AttemptEnd::Stopped,
            end = working => end,
            never = self.scanner.keep_scanning() => match never {},
        };
        let ending = self.end(lease, end).await;
        self.metrics.ended(kind, ending, began.elapsed());
    }

    /// Stores how the attempt ended.
    async fn end(&self, lease: &JobLease, end: AttemptEnd) -> AttemptOutcome {
        let id = lease.job().id;
        let (ending, written) = match end {
            AttemptEnd::Stopped => {
                (AttemptOutcome::HandedBack, write(lease, RELEASE_TIMEOUT, job::release).await)
            }
            AttemptEnd::Finished(Ok(done)) | AttemptEnd::Aborted(Ok(Some(done))) => {
                let JobOutcome { verdict, result } = done;
                tracing::info!(job = %id, verdict = verdict.name(), %result, "job succeeded");
                let succeed = |job: &Job, attempt: &Attempt, now_ms| {
                    job::succeed(job, attempt, verdict, result.clone(), now_ms)
                };
                (AttemptOutcome::Completed(verdict), write(lease, LEASE_DURATION, succeed).await)
            }
            AttemptEnd::Aborted(Ok(None)) => {
                (AttemptOutcome::Cancelled, write(lease, LEASE_DURATION, job::finish_cancel).await)
            }
            AttemptEnd::Finished(Err(JobFailure::LeaseLost))
            | AttemptEnd::Aborted(Err(JobFailure::LeaseLost)) => {
                (AttemptOutcome::Lost, Err(JobFailure::LeaseLost))
            }
            AttemptEnd::Finished(Err(JobFailure::Transient(error)))
            | AttemptEnd::Aborted(Err(JobFailure::Transient(error))) => {
                tracing::warn!(job = %id, error, "job attempt failed");
                let random = uuid::Uuid::new_v4().as_u64_pair().0;
                let fail = |job: &Job, attempt: &Attempt, now_ms| {
                    job::fail(job, attempt, error.as_str().into(), random, now_ms)
                };
                (AttemptOutcome::Failed, write(lease, LEASE_DURATION, fail).await)
            }
            AttemptEnd::Finished(Err(JobFailure::Permanent(reason)))
            | AttemptEnd::Aborted(Err(JobFailure::Permanent(reason))) => {
                let park = |job: &Job, attempt: &Attempt, now_ms| {
                    job::fail_permanently(job, attempt, reason.as_str().into(), now_ms)
                };
                (AttemptOutcome::Dead, write(lease, LEASE_DURATION, park).await)
            }
        };
        match written {
            Ok(Job { state: JobState::Dead { reason, .. }, .. }) => {
                tracing::error!(job = %id, %reason, "job is dead");
                AttemptOutcome::Dead
            }
            Ok(_) => ending,
            Err(JobFailure::LeaseLost) => {
                tracing::warn!(job = %id, "job lease lost");
                AttemptOutcome::Lost
            }
            // The end is not stored: this process resumes the job at the next scan, or another one takes it over.
            Err(error) => {
                tracing::warn!(job = %id, %error, "failed to store the end of a job");
                AttemptOutcome::Lost
            }
        }
    }
}

/// Stores the last transition of an attempt, within `timeout_after`.
async fn write(
    lease: &JobLease,
    timeout_after: Duration,
    step: impl Fn(&Job, &Attempt, u64) -> Result<Job, JobTransitionError>,
) -> Result<Job, JobFailure> {
    let late = || JobFailure::Transient("the store timed out".to_owned());
    timeout(timeout_after, lease.step(step)).await.unwrap_or_else(|_| Err(late()))
}

/// Converts a panic to a failure: a bug in one kind of job must not end the worker.
async fn catch_panic<T>(
    running: impl Future<Output = Result<T, JobFailure>>,
) -> Result<T, JobFailure> {
    let bug = |_| Err(JobFailure::Transient("the job panicked, see the log".to_owned()));
    AssertUnwindSafe(running).catch_unwind().await.unwrap_or_else(bug)
}
