//! Submits and updates jobs by compare-and-set.

use std::time::Duration;

use async_trait::async_trait;
use backon::{ConstantBuilder, Retryable};
use schemas::job::{self, Job, JobId, JobTransitionError, NewJob};

use super::JobStore;
use crate::cas::{self, VersionedRow};
use crate::store::{CasOutcome, StoreError};

/// Why a job was not updated, or may have been.
pub type JobUpdateError = cas::UpdateError<JobTransitionError>;

const RETRY_DELAY: Duration = Duration::from_millis(200);
const MAX_SUBMIT_RETRIES: usize = 10;

/// The row of one job.
struct JobRow<'s> {
    jobs: &'s dyn JobStore,
    id: JobId,
}

#[async_trait]
impl VersionedRow for JobRow<'_> {
    type Value = Job;

    fn revision(job: &Job) -> u64 {
        job.revision
    }

    async fn read(&self) -> Result<Option<Job>, StoreError> {
        self.jobs.job(self.id).await
    }

    async fn write(&self, next: &Job) -> Result<CasOutcome, StoreError> {
        self.jobs.change_job(next).await
    }
}

/// Applies a transition to a job, and returns the resulting job. If that ends the job, expired jobs are deleted.
///
/// # Errors
/// When the transition is refused, or the store fails. In the latter case it may have been applied.
pub async fn update_job(
    jobs: &dyn JobStore,
    id: JobId,
    transition: impl Fn(&Job) -> Result<Job, JobTransitionError>,
) -> Result<Job, JobUpdateError> {
    let transition = |current: Option<&Job>| {
        let current = current.ok_or(JobTransitionError::Missing(id))?;
        if !current.is_understood() {
            return Err(JobTransitionError::NotUnderstood);
        }
        transition(current)
    };
    let job = cas::update(&JobRow { jobs, id }, transition).await?;
    if job.is_ended() {
        delete_expired(jobs).await;
    }
    Ok(job)
}

/// Submits a job. Repeating it with the same id has no effect.
///
/// # Errors
/// When too many jobs are open, or the store fails. In the latter case it may have been submitted.
pub async fn submit(jobs: &dyn JobStore, new: NewJob, now_ms: u64) -> Result<Job, JobUpdateError> {
    (|| try_submit(jobs, new.clone(), now_ms))
        .retry(ConstantBuilder::new().with_delay(RETRY_DELAY).with_max_times(MAX_SUBMIT_RETRIES))
        .when(|error| matches!(error, JobUpdateError::Store(StoreError::Unavailable(_))))
        .await
}

async fn try_submit(jobs: &dyn JobStore, new: NewJob, now_ms: u64) -> Result<Job, JobUpdateError> {
    let existing = jobs.jobs().await.map_err(JobUpdateError::Store)?;
    // A job with this id is the one whose response was lost; it may have been changed since.
    if let Some(job) = existing.iter().find(|job| job.id == new.id) {
        return Ok(job.clone());
    }
    let job = job::submit(new, &existing, now_ms).map_err(JobUpdateError::Refused)?;
    match jobs.change_job(&job).await.map_err(JobUpdateError::Store)? {
        CasOutcome::Applied => Ok(job),
        CasOutcome::Refused => {
            let read = jobs.job(job.id).await.map_err(JobUpdateError::Store)?;
            read.ok_or(JobUpdateError::Unknown)
        }
    }
}

/// Deletes expired jobs. A failure is only logged: the next ended job triggers the next deletion.
pub async fn delete_expired(jobs: &dyn JobStore) {
    let deleting = async {
        for job in job::expired(&jobs.jobs().await?) {
            jobs.delete_job(job.id, job.revision).await?;
        }
        Ok::<_, StoreError>(())
    };
    if let Err(error) = deleting.await {
        tracing::warn!(%error, "failed to delete expired jobs");
    }
}
