//! Background jobs: administrative tasks that an operator submits and a processor runs. Each job is one row of the
//! store, replaced as a whole and conditionally.
//!
//! ```text
//! submit ──> queued ──claim──> running ──succeed──> succeeded
//!              │ ^  ^             │ │ └───permanent or last failure──> dead
//!              │ │  └──release,───┘ │                                   │
//!              │ │     failure      └──finish cancel──> cancelled       │
//!              │ └───────────────────────retry──────────────────────────┘
//!              └─cancel──> cancelled
//! ```
//!
//! | file | owns |
//! |---|---|
//! | `id`, `kind`, `priority` | a job's identity, arguments and priority |
//! | `text` | texts of bounded size |
//! | `transitions` | pure transitions between states |
//! | `fair_queue` | the order in which a worker runs jobs |

mod fair_queue;
mod id;
mod kind;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod person_keys_tests;
mod priority;
#[cfg(test)]
mod tests;
mod text;
mod transitions;

use serde::{Deserialize, Serialize};

pub use fair_queue::{FairQueue, MAX_CONSECUTIVE_BYPASSES};
pub use id::JobId;
pub use kind::{AnnulmentCheckpoint, ExportFormat, ExportFormatFault, JobKind};
pub use priority::{Priority, PriorityFault};
pub use text::{BoundedText, CheckpointFault, JobCheckpoint, JobName, JobText};
pub use transitions::{
    JobTransitionError, MAX_ATTEMPTS, MAX_BACKOFF_MS, MAX_OPEN_JOBS, MIN_BACKOFF_MS, NewJob,
    cancel, claim, fail, fail_permanently, finish_cancel, is_due, release, report_progress, retry,
    save_checkpoint, submit, succeed, take_over,
};

use crate::AnnulmentEffect;
use crate::stored::{self, StoredDocument};

/// Maximum number of kept ended jobs, and separately of kept dead jobs. Older ones are deleted.
pub const MAX_KEPT_ENDED_JOBS: usize = 100;

/// One worker's attempt at a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Name of the worker, unique to its process.
    pub worker: JobName,
    /// Start of the attempt, in milliseconds since 1970 by the worker's clock.
    pub began_at_ms: u64,
}

/// An attempt that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedAttempt {
    /// The attempt.
    #[serde(flatten)]
    pub attempt: Attempt,
    /// Time at which the failure was recorded, in milliseconds since 1970.
    pub failed_at_ms: u64,
    /// The error.
    pub error: JobText,
}

/// What a successful job found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// No difference.
    Clean,
    /// Something differs from the log: see the result.
    Different,
    /// Something could not be compared: see the result.
    Incomplete,
}

impl Verdict {
    /// All verdicts.
    pub const ALL: [Verdict; 3] = [Self::Clean, Self::Different, Self::Incomplete];

    /// Name in JSON and in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Clean => "clean",
            Self::Different => "different",
            Self::Incomplete => "incomplete",
        }
    }
}

/// The state of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum JobState {
    /// Waits for a worker.
    Queued {
        /// End of the backoff, in milliseconds since 1970; 0 if there is no backoff. By the clock of the worker whose
        /// attempt failed.
        not_before_ms: u64,
        /// The next attempt only undoes what the job has begun.
        cancelling: bool,
    },
    /// A worker holds the lease.
    Running {
        /// The current attempt.
        #[serde(flatten)]
        attempt: Attempt,
        /// Cancellation was requested: the worker undoes what the job has begun as soon as it notices.
        cancelling: bool,
    },
    /// Ended successfully.
    Succeeded {
        /// The successful attempt.
        #[serde(flatten)]
        attempt: Attempt,
        /// Time of the end, in milliseconds since 1970.
        ended_at_ms: u64,
        /// What the job found.
        verdict: Verdict,
        /// The finding in words.
        result: JobText,
    },
    /// Failed permanently or too often. Stays until it is retried, or [`MAX_KEPT_ENDED_JOBS`] newer jobs are dead.
    Dead {
        /// Time of the end, in milliseconds since 1970.
        ended_at_ms: u64,
        /// The last error.
        reason: JobText,
        /// The job died while it was being cancelled: a retry only undoes what it has begun.
        cancelling: bool,
    },
    /// Cancelled before it succeeded.
    Cancelled {
        /// Time of the end, in milliseconds since 1970.
        ended_at_ms: u64,
    },
}

impl JobState {
    /// Names of all states, for metrics that show each state from the start.
    pub const NAMES: [&str; 5] = ["queued", "running", "succeeded", "dead", "cancelled"];

    /// Name in JSON and in metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Queued { .. } => "queued",
            Self::Running { .. } => "running",
            Self::Succeeded { .. } => "succeeded",
            Self::Dead { .. } => "dead",
            Self::Cancelled { .. } => "cancelled",
        }
    }

    /// Whether the job has ended for good: a dead job can be retried.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Succeeded { .. } | Self::Cancelled { .. })
    }
}

/// Progress of a job, as its worker last reported it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobProgress {
    /// Completed units of work.
    pub done: u64,
    /// Total units of work; 0 while unknown.
    #[serde(rename = "of")]
    pub total: u64,
    /// The progress in words.
    #[serde(rename = "line")]
    pub message: JobText,
}

/// A background job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// The job's id.
    pub id: JobId,
    /// Counts the changes; a change replaces exactly the previous revision.
    pub revision: u64,
    /// What the job does; without the keys of people once it has ended for good.
    #[serde(flatten)]
    pub kind: JobKind,
    /// Its priority.
    pub priority: Priority,
    /// Name of the person who submitted it.
    #[serde(rename = "asked_by")]
    pub requested_by: JobName,
    /// Time of submission, in milliseconds since 1970.
    pub created_at_ms: u64,
    /// Time of the latest change, in milliseconds since 1970. By the clock of the process that made the change, and
    /// only displayed: a lease is alive as long as the revision changes.
    pub changed_at_ms: u64,
    /// The state.
    #[serde(flatten)]
    pub state: JobState,
    /// Failed attempts since the job was submitted or retried; fewer than [`MAX_ATTEMPTS`] unless it is dead.
    #[serde(rename = "failed")]
    pub failed_attempts: Vec<FailedAttempt>,
    /// Latest progress.
    pub progress: JobProgress,
    /// State from which the next attempt resumes, so that the job takes effect once.
    pub checkpoint: Option<JobCheckpoint>,
    /// JSON pointers of members that only a newer release knows. Such a job is shown, but neither run nor changed.
    #[serde(skip)]
    pub not_understood: Vec<String>,
}

impl Job {
    /// Counts the attempts so far, including the current one.
    pub fn attempts(&self) -> usize {
        let has_attempt =
            matches!(self.state, JobState::Running { .. } | JobState::Succeeded { .. });
        self.failed_attempts.len() + usize::from(has_attempt)
    }

    /// Whether the job was submitted as one of this kind. If it has ended and named people, only their number is
    /// compared.
    pub fn is_of_kind(&self, kind: &JobKind) -> bool {
        self.kind == *kind || self.state.is_final() && self.kind == kind.without_person_keys()
    }

    /// Time of the end, in milliseconds since 1970; `None` if the job has not ended.
    pub fn ended_at_ms(&self) -> Option<u64> {
        match self.state {
            JobState::Queued { .. } | JobState::Running { .. } => None,
            JobState::Succeeded { ended_at_ms, .. }
            | JobState::Dead { ended_at_ms, .. }
            | JobState::Cancelled { ended_at_ms } => Some(ended_at_ms),
        }
    }

    /// Whether the job has ended. Only a retry changes it then.
    pub fn is_ended(&self) -> bool {
        self.ended_at_ms().is_some()
    }

    /// The current attempt, if the job is running.
    pub fn running(&self) -> Option<&Attempt> {
        match &self.state {
            JobState::Running { attempt, .. } => Some(attempt),
            _ => None,
        }
    }

    /// Whether cancellation was requested and is not finished.
    pub fn is_cancelling(&self) -> bool {
        matches!(
            self.state,
            JobState::Queued { cancelling: true, .. }
                | JobState::Running { cancelling: true, .. }
                | JobState::Dead { cancelling: true, .. }
        )
    }

    /// Returns what an annulment or a restoration changes, once that is computed.
    pub fn annulment_effect(&self) -> Option<AnnulmentEffect> {
        match self.kind {
            JobKind::Annul { .. } | JobKind::RestoreAnnulment { .. } => {
                let checkpoint: AnnulmentCheckpoint = self.checkpoint.as_ref()?.read()?;
                Some(checkpoint.effect)
            }
            _ => None,
        }
    }

    /// Encodes the job for its store row.
    pub fn to_json(&self) -> String {
        // Only numbers, strings and lists under string keys: serialization cannot fail.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Decodes what [`Job::to_json`] wrote; `None` if it is damaged, or has a kind or another value that only a newer
    /// release knows.
    pub fn from_json(text: &str) -> Option<Self> {
        let StoredDocument { value, not_understood } = stored::read(text.as_bytes(), &[]).ok()?;
        Some(Self { not_understood, ..value })
    }

    /// Whether this release understands the whole job.
    pub fn is_understood(&self) -> bool {
        self.not_understood.is_empty()
    }
}

/// Returns the ended jobs to delete; none that a newer release extended.
///
/// Dead jobs are counted apart, so that other jobs do not displace them before an operator has seen them.
pub fn expired(jobs: &[Job]) -> Vec<&Job> {
    let is_dead = |job: &Job| matches!(job.state, JobState::Dead { .. });
    let beyond_limit = |dead: bool| {
        let ended = jobs.iter().filter(|job| job.is_understood() && is_dead(job) == dead);
        let mut ended: Vec<_> =
            ended.filter_map(|job| Some((job.ended_at_ms()?, job.id, job))).collect();
        ended.sort_unstable_by_key(|(ended_at_ms, id, _)| std::cmp::Reverse((*ended_at_ms, *id)));
        ended.into_iter().skip(MAX_KEPT_ENDED_JOBS).map(|(_, _, job)| job)
    };
    beyond_limit(false).chain(beyond_limit(true)).collect()
}
