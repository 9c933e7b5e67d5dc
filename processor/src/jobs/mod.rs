//! Background jobs: what operators ask for, and some processor does beside its folding, one at a time.
//!
//! A job is a row that is changed by compare-and-set only (see [`schemas::job`]). Whoever runs one says so every two
//! seconds by changing its row; one whose row has not changed for ten seconds by a worker's own clock is taken over by it.
//! The clocks of two machines are compared for two things only: the pause after a failure, which the worker that failed
//! writes as a time, is as much shorter or longer as they differ; and whether a rebuild that the job has joined was begun
//! since the job was asked for. That a job takes effect once, whoever goes on with it, is its runner's, who may store a
//! checkpoint first.
//!
//! | file | what it has |
//! |---|---|
//! | `worker` | the loop: look, claim, run, end |
//! | `board` | what a worker sees of all jobs, and which of them nobody is at any more |
//! | `held` | the job that a worker has, until it has it no more |
//! | `kinds` | what is done for each kind of job |
//! | `metrics` | what operators see of it |
//! | `command` | `processor jobs`, `allocator jobs` |
//!
//! A new kind is a variant of [`schemas::job::JobKind`], a file in `kinds`, and a line in each match on it.

mod board;
mod command;
mod held;
mod kinds;
mod metrics;
mod worker;

pub use command::{JobsArgs, jobs_command};
pub use held::Held;
pub use kinds::{Kinds, KindsParts};
pub use metrics::JobMetrics;
pub use worker::{LEASE, Worker, WorkerParts};

use async_trait::async_trait;
use schemas::job::{JobText, Verdict};

/// What came of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// What was found.
    pub verdict: Verdict,
    /// The same in words, short.
    pub result: JobText,
}

/// Why a job came to nothing, by what its worker does.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Tries again after a pause.
    #[error("{0}")]
    Again(String),
    /// Parks it: nothing helps but an operator.
    #[error("{0}")]
    InVain(String),
    /// Lets go of it: somebody else has it.
    #[error("somebody else has the job")]
    Lost,
}

/// Does jobs. May be dropped at any moment, and begun again by another process from the job's checkpoint.
#[async_trait]
pub trait Runner: Send + Sync + 'static {
    /// Does a job, or goes on with it.
    ///
    /// # Errors
    /// When it came to nothing.
    async fn run(&self, job: &Held) -> Result<Done, Failure>;

    /// Gives up what a job has begun; if that was done already, answers what came of it.
    ///
    /// # Errors
    /// When it could not be given up.
    async fn give_up(&self, job: &Held) -> Result<Option<Done>, Failure>;
}
