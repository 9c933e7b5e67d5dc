//! The job that a worker has, until it has it no more.

use std::sync::{Arc, Mutex as StdMutex, PoisonError};

use schemas::job::{
    self, Attempt, Job, JobCheckpoint, JobId, JobKind, JobProgress, JobRefused, JobText,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use storage::jobs::{ChangeError, JobStore, change};
use storage::store::StoreError;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

use super::Failure;
use super::worker::{BEAT_INTERVAL, LEASE, NowMs};

/// A job that this process has.
pub struct Held {
    jobs: Arc<dyn JobStore>,
    /// As it was when this process began with it.
    job: Job,
    attempt: Attempt,
    now_ms: NowMs,
    progress: StdMutex<JobProgress>,
    checkpoint: StdMutex<Option<JobCheckpoint>>,
    /// One write at a time: each follows the other.
    writing: Mutex<()>,
    cancelling: CancellationToken,
}

impl Held {
    /// A job that runs here; `None` if it does not run at all.
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
            progress: StdMutex::new(job.progress.clone()),
            checkpoint: StdMutex::new(job.checkpoint.clone()),
            job,
            writing: Mutex::default(),
            cancelling,
        })
    }

    /// Which job.
    pub fn id(&self) -> JobId {
        self.job.id
    }

    /// What is to be done.
    pub fn kind(&self) -> &JobKind {
        &self.job.kind
    }

    /// The job as it was when this process began with it.
    pub(super) fn job(&self) -> &Job {
        &self.job
    }

    /// What was stored last, here or by a worker before; `None`: nothing was.
    ///
    /// # Errors
    /// When it cannot be read: another release wrote it.
    pub fn checkpoint<T: DeserializeOwned>(&self) -> Result<Option<T>, Failure> {
        let stored = self.checkpoint.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let unreadable = || Failure::InVain("its checkpoint is of another release".to_owned());
        stored.map(|stored| stored.read().ok_or_else(unreadable)).transpose()
    }

    /// Says how far it has come; it is written with the next sign of life.
    pub fn tell(&self, done: u64, of: u64, line: impl Into<JobText>) {
        let now = JobProgress { done, of, line: line.into() };
        *self.progress.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }

    /// Stores what whoever goes on after this process has to know. Once this returns, it is there.
    ///
    /// # Errors
    /// When somebody else has the job, or the store does not answer.
    pub async fn save(&self, checkpoint: &(impl Serialize + Sync)) -> Result<(), Failure> {
        let checkpoint = JobCheckpoint::of(checkpoint);
        let checkpoint = checkpoint.map_err(|error| Failure::InVain(error.to_string()))?;
        let next = checkpoint.clone();
        self.step(move |job, attempt, now_ms| job::save(job, attempt, next.clone(), now_ms))
            .await?;
        *self.checkpoint.lock().unwrap_or_else(PoisonError::into_inner) = Some(checkpoint);
        Ok(())
    }

    /// Wakes when somebody wants it to end.
    pub(super) async fn cancelling(&self) {
        self.cancelling.cancelled().await;
    }

    /// Says again and again that this process lives. Ends once the job is lost: somebody else has it, or may have it by
    /// now, since nothing could be said for as long as others wait.
    pub(super) async fn keep_alive(&self) {
        let mut said_at = Instant::now();
        loop {
            sleep(BEAT_INTERVAL).await;
            let began = Instant::now();
            match timeout_at(said_at + LEASE, self.beat()).await {
                Ok(Ok(())) => said_at = began,
                Ok(Err(Failure::Lost)) | Err(_) => return,
                Ok(Err(error)) => {
                    tracing::warn!(job = %self.job.id, %error, "a sign of life could not be given");
                }
            }
        }
    }

    /// One sign of life, with how far it has come.
    pub(super) async fn beat(&self) -> Result<(), Failure> {
        let progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let step = move |job: &Job, attempt: &Attempt, now_ms| {
            job::tell(job, attempt, progress.clone(), now_ms)
        };
        self.step(step).await.map(drop)
    }

    /// As [`beat`](Self::beat), before something that cannot be taken back. Never returns where somebody wants the job to
    /// end: whoever waits is dropped.
    pub(super) async fn beat_unless_cancelling(&self) -> Result<(), Failure> {
        self.beat().await?;
        if self.cancelling.is_cancelled() {
            std::future::pending::<()>().await;
        }
        Ok(())
    }

    /// Takes a step with it.
    pub(super) async fn step(
        &self,
        step: impl Fn(&Job, &Attempt, u64) -> Result<Job, JobRefused>,
    ) -> Result<Job, Failure> {
        let _one_at_a_time = self.writing.lock().await;
        loop {
            let now_ms = (self.now_ms)();
            let step = |job: &Job| step(job, &self.attempt, now_ms);
            match change(self.jobs.as_ref(), self.job.id, step).await {
                Ok(job) => {
                    if job.is_cancelling() {
                        self.cancelling.cancel();
                    }
                    return Ok(job);
                }
                Err(ChangeError::Refused(_)) => return Err(Failure::Lost),
                // A wish to end may have come between: look again whose it is.
                Err(ChangeError::Unknown) => {}
                Err(ChangeError::Store(error @ StoreError::Unavailable(_))) => {
                    return Err(Failure::Again(error.to_string()));
                }
                Err(ChangeError::Store(error)) => return Err(Failure::InVain(error.to_string())),
            }
        }
    }
}
