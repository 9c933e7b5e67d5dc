//! Where background jobs rest: one row each, in the same place as the totals, changed as a whole and conditionally. What
//! the steps of a job are is not decided here: see [`schemas::job`].

mod change;
mod unreadable;

use async_trait::async_trait;
use schemas::job::{Job, JobId};

use crate::store::{Conditional, StoreError};

pub use change::{ChangeError, change, delete_surplus, submit};
pub(crate) use unreadable::readable;

/// Where jobs rest.
#[async_trait]
pub trait JobStore: Send + Sync + 'static {
    /// All jobs, the oldest first. One that cannot be read, as it is damaged or a newer release's, is left out. Not
    /// linearizable: fast, maybe a step behind.
    async fn jobs(&self) -> Result<Vec<Job>, StoreError>;

    /// One job. As of [`JobStore::jobs`].
    async fn job(&self, id: JobId) -> Result<Option<Job>, StoreError>;

    /// Puts a job in the place of the one whose revision comes just before its own; revision 1 in the place of none.
    async fn change_job(&self, next: &Job) -> Result<Conditional, StoreError>;

    /// Deletes a job that is as it is given.
    async fn delete_job(&self, job: &Job) -> Result<Conditional, StoreError>;
}
