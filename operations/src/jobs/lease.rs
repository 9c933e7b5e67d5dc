//! A claimed job: heartbeats, progress, checkpoint and transitions, until the lease is lost.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use schemas::job::{
    self, Attempt, Job, JobCheckpoint, JobId, JobKind, JobProgress, JobText, JobTransitionError,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use storage::jobs::{JobStore, JobUpdateError, update_job};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

use super::JobFailure;

/// How long a job's row may stay unchanged before its worker counts as dead. Measured by the observer's clock.
pub const LEASE_DURATION: Duration = Duration::from_secs(10);
/// Pause between two renewals of a lease.
pub(super) const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(2);

/// A clock: milliseconds since 1970. A parameter, so that tests decide what time it is.
pub type NowMs = fn() -> u64;

/// A job that this process executes.
pub struct JobLease {
    jobs: Arc<dyn JobStore>,
    /// As it was when this process claimed it.
    job: Job,
    attempt: Attempt,
    now_ms: NowMs,
    progress: Mutex<JobProgress>,
    checkpoint: Mutex<Option<JobCheckpoint>>,
    /// Serializes writes, since each replaces the previous revision.
    writing: tokio::sync::Mutex<()>,
    cancelling: CancellationToken,
}

impl JobLease {
    /// Wraps a running job; `None` if it is not running.
    pub(super) fn new(jobs: Arc<dyn JobStore>, job: Job, now_ms: NowMs) -> Option<Self> {
        let attempt = job.running()?.clone();
        let cancelling = CancellationToken::new();
        if job.is_cancelling() {
            cancelling.cancel();
        }
        Some(Self {
            jobs,
            attempt,
            now_ms,
            progress: Mutex::new(job.progress.clone()),
            checkpoint: Mutex::new(job.checkpoint.clone()),
            job,
            writing: tokio::sync::Mutex::default(),
            cancelling,
        })
    }

    /// The job's id.
    pub fn id(&self) -> JobId {
        self.job.id
    }

    /// The job's kind.
    pub fn kind(&self) -> &JobKind {
        &self.job.kind
    }

    /// The job as it was when this process claimed it.
    pub(super) fn job(&self) -> &Job {
        &self.job
    }

    /// The latest checkpoint, of this worker or a former one; `None` before the first.
    ///
    /// # Errors
    /// When it cannot be decoded: another release wrote it, whose workers may resume the job after the backoff.
    pub fn checkpoint<T: DeserializeOwned>(&self) -> Result<Option<T>, JobFailure> {
        let stored = self.checkpoint.lock().clone();
        let unreadable =
            || JobFailure::Transient("the job's checkpoint is of another release".to_owned());
        stored.map(|stored| stored.read().ok_or_else(unreadable)).transpose()
    }

    /// Whether an attempt of the job has stored a checkpoint.
    pub(super) fn has_checkpoint(&self) -> bool {
        self.checkpoint.lock().is_some()
    }

    /// Sets the progress, which the next heartbeat stores.
    pub fn report_progress(&self, done: u64, total: u64, message: impl Into<JobText>) {
        let progress = JobProgress { done, total, message: message.into() };
        *self.progress.lock() = progress;
    }

    /// Stores the state that the next attempt resumes from. It is durable once this returns.
    ///
    /// # Errors
    /// When another worker has the job, or the store is unavailable.
    pub async fn save(&self, checkpoint: &(impl Serialize + Sync)) -> Result<(), JobFailure> {
        let checkpoint = JobCheckpoint::of(checkpoint);
        let checkpoint = checkpoint.map_err(|error| JobFailure::Permanent(error.to_string()))?;
        let next = checkpoint.clone();
        self.step(move |job, attempt, now_ms| {
            job::save_checkpoint(job, attempt, next.clone(), now_ms)
        })
        .await?;
        *self.checkpoint.lock() = Some(checkpoint);
        Ok(())
    }

    /// Reads another job; `None` if it was deleted.
    pub(super) async fn other_job(&self, id: JobId) -> Result<Option<Job>, JobFailure> {
        Ok(self.jobs.job(id).await?)
    }

    /// Resolves when the job is being cancelled.
    pub(super) async fn cancelling(&self) {
        self.cancelling.cancelled().await;
    }

    /// Renews the lease until it is lost: another worker has the job, or may have it since no heartbeat could be stored
    /// for [`LEASE_DURATION`].
    pub(super) async fn keep_heartbeating(&self) {
        let mut renewed_at = Instant::now();
        loop {
            sleep(HEARTBEAT_INTERVAL).await;
            let began = Instant::now();
            match timeout_at(renewed_at + LEASE_DURATION, self.heartbeat()).await {
                Ok(Ok(())) => renewed_at = began,
                Ok(Err(JobFailure::LeaseLost)) | Err(_) => return,
                Ok(Err(error)) => {
                    tracing::warn!(job = %self.job.id, %error, "failed to renew the job lease");
                }
            }
        }
    }

    /// Renews the lease once and stores the progress.
    pub(super) async fn heartbeat(&self) -> Result<(), JobFailure> {
        let progress = self.progress.lock().clone();
        let step = move |job: &Job, attempt: &Attempt, now_ms| {
            job::report_progress(job, attempt, progress.clone(), now_ms)
        };
        self.step(step).await.map(drop)
    }

    /// Renews the lease before an irreversible step. Never returns if the job is being cancelled: the caller is dropped
    /// then.
    pub(super) async fn heartbeat_unless_cancelling(&self) -> Result<(), JobFailure> {
        self.heartbeat().await?;
        if self.cancelling.is_cancelled() {
            std::future::pending::<()>().await;
        }
        Ok(())
    }

    /// Applies a transition to the job.
    pub(super) async fn step(
        &self,
        step: impl Fn(&Job, &Attempt, u64) -> Result<Job, JobTransitionError>,
    ) -> Result<Job, JobFailure> {
        let _guard = self.writing.lock().await;
        loop {
            let now_ms = (self.now_ms)();
            let step = |job: &Job| step(job, &self.attempt, now_ms);
            match update_job(self.jobs.as_ref(), self.job.id, step).await {
                Ok(job) => {
                    if job.is_cancelling() {
                        self.cancelling.cancel();
                    }
                    return Ok(job);
                }
                Err(JobUpdateError::Refused(_)) => return Err(JobFailure::LeaseLost),
                // The outcome is unknown, or a cancellation came in between: read the row again.
                Err(JobUpdateError::Unknown) => {}
                Err(JobUpdateError::Store(error)) => return Err(error.into()),
            }
        }
    }
}
