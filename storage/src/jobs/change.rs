//! Puts a job in the place of the one that it follows.

use std::time::Duration;

use async_trait::async_trait;
use schemas::job::{self, Job, JobId, JobRefused, NewJob};

use super::JobStore;
use crate::revised::{self, RevisedRow};
use crate::store::{Conditional, StoreError};

/// Why a job is as it was, or may be.
pub type ChangeError = revised::ChangeError<JobRefused>;

const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// How often a store that does not answer is asked again.
const ATTEMPTS: u32 = 10;

/// The row of one job.
struct JobRow<'s> {
    jobs: &'s dyn JobStore,
    id: JobId,
}

#[async_trait]
impl RevisedRow for JobRow<'_> {
    type Value = Job;

    fn revision(job: &Job) -> u64 {
        job.revision
    }

    async fn read(&self) -> Result<Option<Job>, StoreError> {
        self.jobs.job(self.id).await
    }

    async fn write(&self, next: &Job) -> Result<Conditional, StoreError> {
        self.jobs.change_job(next).await
    }
}

/// Takes a step from whatever a job is now, and answers the job that it led to. If it has ended by that, those that ended
/// long ago are deleted.
///
/// # Errors
/// When it cannot be taken, or the store does not answer. Then it may have been taken all the same.
pub async fn change(
    jobs: &dyn JobStore,
    id: JobId,
    step: impl Fn(&Job) -> Result<Job, JobRefused>,
) -> Result<Job, ChangeError> {
    let step = |now: Option<&Job>| step(now.ok_or(JobRefused::Missing(id))?);
    let job = revised::change(&JobRow { jobs, id }, step).await?;
    if job.is_ended() {
        delete_surplus(jobs).await;
    }
    Ok(job)
}

/// Asks for a new job. The same again, with the same id, asks for nothing more.
///
/// # Errors
/// When too many wait, or the store does not answer. Then it may have been asked for all the same.
pub async fn submit(jobs: &dyn JobStore, new: NewJob, now_ms: u64) -> Result<Job, ChangeError> {
    let mut attempts = 0;
    loop {
        match try_submit(jobs, &new, now_ms).await {
            Err(ChangeError::Store(StoreError::Unavailable(_))) if attempts < ATTEMPTS => {
                attempts += 1;
                tokio::time::sleep(RETRY_PAUSE).await;
            }
            answered => return answered,
        }
    }
}

async fn try_submit(jobs: &dyn JobStore, new: &NewJob, now_ms: u64) -> Result<Job, ChangeError> {
    let others = jobs.jobs().await.map_err(ChangeError::Store)?;
    // Nobody else has its id: it is the one that was asked for when no answer came, and it may have gone on since.
    if let Some(job) = others.iter().find(|job| job.id == new.id) {
        return Ok(job.clone());
    }
    let job = job::submit(new.clone(), &others, now_ms).map_err(ChangeError::Refused)?;
    match jobs.change_job(&job).await.map_err(ChangeError::Store)? {
        Conditional::Applied => Ok(job),
        Conditional::Refused => {
            let read = jobs.job(job.id).await.map_err(ChangeError::Store)?;
            read.ok_or(ChangeError::Unknown)
        }
    }
}

/// Deletes the jobs that ended so long ago that they are not kept. What is not deleted now is by whoever ends the next.
pub async fn delete_surplus(jobs: &dyn JobStore) {
    let deleting = async {
        for job in job::surplus(&jobs.jobs().await?) {
            jobs.delete_job(job.id, job.revision).await?;
        }
        Ok::<_, StoreError>(())
    };
    if let Err(error) = deleting.await {
        tracing::warn!(%error, "jobs that ended long ago are not deleted yet");
    }
}
