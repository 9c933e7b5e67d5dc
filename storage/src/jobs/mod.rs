//! The store of background jobs: one row each, in the same database as the totals. Does not own the transitions of a
//! job: see [`schemas::job`].

mod decode;
mod update;

use async_trait::async_trait;
use schemas::job::{Job, JobId};
use uuid::Uuid;

use crate::store::{CasOutcome, StoreError};

use decode::decode;
pub use update::{JobUpdateError, delete_expired, submit, update_job};

/// All rows of jobs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JobRows {
    /// Decoded jobs, oldest first.
    pub jobs: Vec<Job>,
    /// Rows that are damaged, or of a kind that only a newer release knows.
    pub unreadable: Vec<UnreadableJob>,
}

/// A row that cannot be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnreadableJob {
    /// The job's id.
    pub id: JobId,
    /// Revision of the row.
    pub revision: u64,
}

impl JobRows {
    /// Decodes rows of id, revision and text, given in any order.
    pub(crate) fn of<T: AsRef<str>>(rows: impl IntoIterator<Item = (Uuid, u64, T)>) -> Self {
        let mut decoded = Self::default();
        for (id, revision, text) in rows {
            match decode(id, text.as_ref()) {
                Some(job) => decoded.jobs.push(job),
                None => decoded.unreadable.push(UnreadableJob { id: JobId(id), revision }),
            }
        }
        decoded.jobs.sort_unstable_by_key(|job| (job.created_at_ms, job.id));
        decoded
    }
}

/// Stores jobs.
#[async_trait]
pub trait JobStore: Send + Sync + 'static {
    /// Reads the rows of all jobs. Not linearizable: may lack the latest changes.
    async fn job_rows(&self) -> Result<JobRows, StoreError>;

    /// Reads all jobs that can be decoded, oldest first. As [`job_rows`](Self::job_rows).
    async fn jobs(&self) -> Result<Vec<Job>, StoreError> {
        Ok(self.job_rows().await?.jobs)
    }

    /// Reads one job. As [`job_rows`](Self::job_rows).
    async fn job(&self, id: JobId) -> Result<Option<Job>, StoreError>;

    /// Replaces the job of the previous revision; revision 1 creates it.
    async fn change_job(&self, next: &Job) -> Result<CasOutcome, StoreError>;

    /// Deletes a job if it has this revision.
    async fn delete_job(&self, id: JobId, revision: u64) -> Result<CasOutcome, StoreError>;
}
