//! Background jobs: tasks that operators submit and a processor executes while it folds, one at a time.
//!
//! A job is a row that is changed by compare-and-set only (see [`schemas::job`]). Its worker renews the lease every two
//! seconds by changing the row; another worker takes over a job whose row has not changed for ten seconds by its own
//! clock. Clocks of two machines are compared in two places only: the backoff after a failure is stored as a time, and
//! a rebuild that the job joined is checked for having begun after the job's submission. Workers take turns in scanning
//! the jobs, so that their number does not load the store. That a job takes effect once, however many workers it takes,
//! is up to its executor, which may store a checkpoint first.
//!
//! | file | owns |
//! |---|---|
//! | `worker` | the loop: scan, claim, execute, store the end |
//! | `scanner` | reading all jobs, and detecting expired leases |
//! | `turns` | which worker scans in which second |
//! | `lease` | a claimed job: heartbeats, progress, checkpoint, transitions |
//! | `executors` | one file per kind of job |
//! | `metrics` | metrics of jobs |
//!
//! A new kind is a variant of [`schemas::job::JobKind`], a file in `executors`, and an arm in each match on it.

mod executors;
mod lease;
mod metrics;
mod scanner;
mod turns;
mod worker;

pub use executors::{JobExecutorDeps, JobExecutors, RebuildComparison, rebuild_result};
pub use lease::{JobLease, LEASE_DURATION, NowMs};
pub use metrics::JobMetrics;
pub use turns::ScanTurns;
pub use worker::{JobWorker, JobWorkerDeps};

use async_trait::async_trait;
use schemas::job::{JobText, Verdict};

/// The result of a successful job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobOutcome {
    /// Whether differences were found.
    pub verdict: Verdict,
    /// The result in words.
    pub result: JobText,
}

/// Why an attempt failed, by what its worker does next.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JobFailure {
    /// Retries after a backoff.
    #[error("{0}")]
    Transient(String),
    /// Makes the job dead: only an operator can help.
    #[error("{0}")]
    Permanent(String),
    /// Drops the job: another worker has it.
    #[error("another worker has the job")]
    LeaseLost,
}

/// Executes jobs. May be dropped at any await point; another process resumes from the job's checkpoint.
#[async_trait]
pub trait JobExecutor: Send + Sync + 'static {
    /// Executes a job, or resumes it.
    ///
    /// # Errors
    /// When the attempt failed.
    async fn run(&self, job: &JobLease) -> Result<JobOutcome, JobFailure>;

    /// Undoes what a cancelled job began; returns the outcome if the job was already complete.
    ///
    /// # Errors
    /// When it could not be undone.
    async fn abort(&self, job: &JobLease) -> Result<Option<JobOutcome>, JobFailure>;
}
