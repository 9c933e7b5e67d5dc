//! A job: work that an operator asks for and that some processor does in the background. One row of the store each,
//! changed as a whole and conditionally, as the roster is.
//!
//! ```text
//! submit ──> queued ──claim──> running ──succeed──> succeeded
//!              │ ^  ^             │ │ └───park, last failure──> dead
//!              │ │  └─hand back,──┘ │                            │
//!              │ │    failure       └──cancelled──> cancelled    │
//!              │ └───────────────────retry───────────────────────┘
//!              └─cancel──> cancelled
//! ```
//!
//! | file | what it has |
//! |---|---|
//! | `id`, `kind`, `priority` | how a job is named, what is to be done, and how urgently |
//! | `text` | texts of bounded size |
//! | `steps` | how one state follows another: pure |
//! | `turns` | which job is next: pure |

mod id;
mod kind;
mod priority;
mod steps;
#[cfg(test)]
mod tests;
mod text;
mod turns;

use serde::{Deserialize, Serialize};

pub use id::JobId;
pub use kind::{ExportFormat, ExportFormatFault, JobKind};
pub use priority::{Priority, PriorityFault};
pub use steps::{
    JobRefused, LONGEST_BACKOFF_MS, MAX_ATTEMPTS, MAX_OPEN_JOBS, NewJob, SHORTEST_BACKOFF_MS,
    cancel, cancelled, claim, fail, hand_back, park, retry, save, submit, succeed, take_over, tell,
};
pub use text::{CheckpointFault, Clipped, JobCheckpoint, JobName, JobText};
pub use turns::{TURNS_IN_A_ROW, Turns};

/// So many ended jobs are kept, the newest, and as many dead ones besides; whoever ends one more deletes the others.
pub const KEPT_ENDED_JOBS: usize = 100;

/// One worker's try at a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Who: a name that no other process ever has.
    pub worker: JobName,
    /// Since when, in milliseconds since 1970 by the worker's clock.
    pub began_at_ms: u64,
}

/// A try that came to nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedAttempt {
    /// Whose.
    #[serde(flatten)]
    pub attempt: Attempt,
    /// When it was known to have failed, in milliseconds since 1970.
    pub failed_at_ms: u64,
    /// Why.
    pub error: JobText,
}

/// What a job that was done has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Nothing to complain of.
    Clean,
    /// Something is not as the log says: see the result.
    Different,
    /// Something could not be compared: see the result.
    Incomplete,
}

impl Verdict {
    /// All of them.
    pub const ALL: [Verdict; 3] = [Self::Clean, Self::Different, Self::Incomplete];

    /// Its name, as in JSON and in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Clean => "clean",
            Self::Different => "different",
            Self::Incomplete => "incomplete",
        }
    }
}

/// Where a job stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum JobState {
    /// It waits for a worker.
    Queued {
        /// Not before this, in milliseconds since 1970 by the clock of the worker whose try failed not long ago; 0: at once.
        not_before_ms: u64,
        /// What it began is to be given up, and nothing else is done.
        cancelling: bool,
    },
    /// A worker has it.
    Running {
        /// Which, and since when.
        #[serde(flatten)]
        attempt: Attempt,
        /// Somebody wants it to end: its worker gives it up as soon as it hears of that.
        cancelling: bool,
    },
    /// It was done.
    Succeeded {
        /// By whom, and since when.
        #[serde(flatten)]
        attempt: Attempt,
        /// When, in milliseconds since 1970.
        ended_at_ms: u64,
        /// What was found.
        verdict: Verdict,
        /// The same in words.
        result: JobText,
    },
    /// It was tried for the last time, or trying again is in vain: it stays as it is until somebody retries it, or
    /// [`KEPT_ENDED_JOBS`] newer ones are dead as well.
    Dead {
        /// When, in milliseconds since 1970.
        ended_at_ms: u64,
        /// Why.
        reason: JobText,
        /// It died while it was being given up, as somebody wanted: whoever retries it has it given up, and nothing else.
        cancelling: bool,
    },
    /// Somebody wanted it to end before it was done.
    Cancelled {
        /// When, in milliseconds since 1970.
        ended_at_ms: u64,
    },
}

impl JobState {
    /// Every name there is: for metrics, which show all of them from the start.
    pub const NAMES: [&str; 5] = ["queued", "running", "succeeded", "dead", "cancelled"];

    /// Its name, as in JSON and in metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Queued { .. } => "queued",
            Self::Running { .. } => "running",
            Self::Succeeded { .. } => "succeeded",
            Self::Dead { .. } => "dead",
            Self::Cancelled { .. } => "cancelled",
        }
    }
}

/// How far a job has come, as its worker said last.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobProgress {
    /// So much is done.
    pub done: u64,
    /// Of so much; 0 while that is not known.
    pub of: u64,
    /// The same in words.
    pub line: JobText,
}

/// A job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Its id.
    pub id: JobId,
    /// Counts the changes; each names the one that it follows.
    pub revision: u64,
    /// What is to be done.
    #[serde(flatten)]
    pub kind: JobKind,
    /// How urgent it is.
    pub priority: Priority,
    /// Who asked for it.
    pub asked_by: JobName,
    /// When it was asked for, in milliseconds since 1970.
    pub created_at_ms: u64,
    /// When its row was changed last, in milliseconds since 1970 by the clock of whoever did. For people; what decides
    /// whether a worker lives is that the row changes at all.
    pub changed_at_ms: u64,
    /// Where it stands.
    #[serde(flatten)]
    pub state: JobState,
    /// The tries that came to nothing, since it was asked for or retried; fewer than [`MAX_ATTEMPTS`] before it is dead.
    pub failed: Vec<FailedAttempt>,
    /// How far it has come.
    pub progress: JobProgress,
    /// What its runner has to know to go on where a worker left off, so that it takes effect once.
    pub checkpoint: Option<JobCheckpoint>,
}

impl Job {
    /// Tries so far, the one that is on included.
    pub fn attempts(&self) -> usize {
        let on = matches!(self.state, JobState::Running { .. } | JobState::Succeeded { .. });
        self.failed.len() + usize::from(on)
    }

    /// When it came to its end, in milliseconds since 1970; `None` if it has not.
    pub fn ended_at_ms(&self) -> Option<u64> {
        match self.state {
            JobState::Queued { .. } | JobState::Running { .. } => None,
            JobState::Succeeded { ended_at_ms, .. }
            | JobState::Dead { ended_at_ms, .. }
            | JobState::Cancelled { ended_at_ms } => Some(ended_at_ms),
        }
    }

    /// Whether nothing will happen to it any more by itself.
    pub fn is_ended(&self) -> bool {
        self.ended_at_ms().is_some()
    }

    /// Who has it.
    pub fn running(&self) -> Option<&Attempt> {
        match &self.state {
            JobState::Running { attempt, .. } => Some(attempt),
            _ => None,
        }
    }

    /// Whether somebody wants it to end and what it began is not given up yet; nobody is at that if it is dead.
    pub fn is_cancelling(&self) -> bool {
        matches!(
            self.state,
            JobState::Queued { cancelling: true, .. }
                | JobState::Running { cancelling: true, .. }
                | JobState::Dead { cancelling: true, .. }
        )
    }

    /// The job as its row holds it.
    pub fn to_json(&self) -> String {
        // Numbers, strings and lists under string keys: there is nothing in it that JSON cannot hold.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads what [`Job::to_json`] wrote. `None` for damage, and for a kind that only a newer release knows.
    pub fn from_json(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }
}

/// The ended jobs that are not kept: all but the newest, and of dead ones all but the newest dead ones, so that many others
/// do not put away what somebody still has to look at.
pub fn surplus(jobs: &[Job]) -> Vec<&Job> {
    let is_dead = |job: &Job| matches!(job.state, JobState::Dead { .. });
    let of = |dead: bool| {
        let ended = jobs.iter().filter(|job| is_dead(job) == dead);
        let mut ended: Vec<_> =
            ended.filter_map(|job| Some((job.ended_at_ms()?, job.id, job))).collect();
        ended.sort_unstable_by_key(|(ended_at_ms, id, _)| std::cmp::Reverse((*ended_at_ms, *id)));
        ended.into_iter().skip(KEPT_ENDED_JOBS).map(|(_, _, job)| job)
    };
    of(false).chain(of(true)).collect()
}
