//! Where background jobs rest: one row each, in the same place as the totals, changed as a whole and conditionally. What
//! the steps of a job are is not decided here: see [`schemas::job`].

mod change;
mod unreadable;

use async_trait::async_trait;
use schemas::job::{Job, JobId};
use uuid::Uuid;

use crate::store::{Conditional, StoreError};

pub use change::{ChangeError, change, delete_surplus, submit};
use unreadable::readable;

/// Every row there is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JobRows {
    /// Those that can be read, the oldest first.
    pub jobs: Vec<Job>,
    /// Those that cannot: damaged, or of a kind that only a newer release knows.
    pub unreadable: Vec<UnreadableJob>,
}

/// A row that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnreadableJob {
    /// Of which job.
    pub id: JobId,
    /// As of which change.
    pub revision: u64,
}

impl JobRows {
    /// Of rows in any order: each with its id, revision and text.
    pub(crate) fn of<T: AsRef<str>>(rows: impl IntoIterator<Item = (Uuid, u64, T)>) -> Self {
        let mut all = Self::default();
        for (id, revision, text) in rows {
            match readable(id, text.as_ref()) {
                Some(job) => all.jobs.push(job),
                None => all.unreadable.push(UnreadableJob { id: JobId(id), revision }),
            }
        }
        all.jobs.sort_unstable_by_key(|job| (job.created_at_ms, job.id));
        all
    }
}

/// Where jobs rest.
#[async_trait]
pub trait JobStore: Send + Sync + 'static {
    /// The rows of all jobs. Not linearizable: fast, maybe a step behind.
    async fn job_rows(&self) -> Result<JobRows, StoreError>;

    /// All jobs that can be read, the oldest first. As of [`JobStore::job_rows`].
    async fn jobs(&self) -> Result<Vec<Job>, StoreError> {
        Ok(self.job_rows().await?.jobs)
    }

    /// One job. As of [`JobStore::job_rows`].
    async fn job(&self, id: JobId) -> Result<Option<Job>, StoreError>;

    /// Puts a job in the place of the one whose revision comes just before its own; revision 1 in the place of none.
    async fn change_job(&self, next: &Job) -> Result<Conditional, StoreError>;

    /// Deletes the row of a job that is at this revision.
    async fn delete_job(&self, id: JobId, revision: u64) -> Result<Conditional, StoreError>;
}
