//! Transitions from one state of a job to the next, as pure functions.
//!
//! Each returns the job at its next revision, or why the transition is refused. The store replaces the previous
//! revision conditionally, so of two concurrent transitions one is rejected.

use super::{
    Attempt, FailedAttempt, Job, JobCheckpoint, JobId, JobKind, JobName, JobProgress, JobState,
    JobText, Priority, Verdict,
};

/// Attempts before a failing job is dead.
pub const MAX_ATTEMPTS: usize = 5;

/// Maximum open (queued or running) jobs of each priority: a flood of one priority takes no slot from the others.
pub const MAX_OPEN_JOBS: usize = 250;

/// Upper bound of the backoff after the first failure; doubles with each failure. The lower bound is half of it.
pub const MIN_BACKOFF_MS: u64 = 5_000;
/// Upper bound of every backoff.
pub const MAX_BACKOFF_MS: u64 = 300_000;

/// A due time that has passed by every clock.
const DUE_NOW: u64 = 0;

/// Why a transition is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JobTransitionError {
    /// The job does not exist, or is no longer kept.
    #[error("there is no job {0}: it never existed, or it ended so long ago that it was deleted")]
    Missing(JobId),
    /// The queue of its priority is full.
    #[error(
        "{MAX_OPEN_JOBS} jobs of priority {0} are already queued or running: wait, or cancel some"
    )]
    Full(Priority),
    /// The job has ended.
    #[error("the job has ended: it is {0}")]
    Ended(&'static str),
    /// The job is not queued, or its backoff has not elapsed.
    #[error("the job is not queued, or not due yet")]
    NotDue,
    /// Another worker holds the lease, or none does.
    #[error("the job's lease is lost: this worker no longer runs it")]
    LeaseLost,
    /// The job is already being cancelled.
    #[error("the job is already being cancelled")]
    Cancelling,
    /// Only dead jobs can be retried.
    #[error("only a dead job can be retried: this one is {0}")]
    NotDead(&'static str),
    /// The job has members that only a newer release knows, and that a change by this release would drop.
    #[error("a newer release wrote the job: this release can neither run nor change it")]
    NotUnderstood,
}

/// A request for a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewJob {
    /// The job's id.
    pub id: JobId,
    /// What the job does.
    pub kind: JobKind,
    /// Its priority.
    pub priority: Priority,
    /// Name of the person who requests it.
    pub requested_by: JobName,
}

/// Creates a queued job, given all existing jobs.
///
/// # Errors
/// When too many jobs of its priority are open.
pub fn submit(new: NewJob, existing: &[Job], now_ms: u64) -> Result<Job, JobTransitionError> {
    let NewJob { id, kind, priority, requested_by } = new;
    let open = existing.iter().filter(|job| job.priority == priority && !job.is_ended()).count();
    if open >= MAX_OPEN_JOBS {
        return Err(JobTransitionError::Full(priority));
    }
    Ok(Job {
        id,
        revision: 1,
        kind,
        priority,
        requested_by,
        created_at_ms: now_ms,
        changed_at_ms: now_ms,
        state: JobState::Queued { not_before_ms: DUE_NOW, cancelling: false },
        failed_attempts: Vec::new(),
        progress: JobProgress::default(),
        checkpoint: None,
        not_understood: Vec::new(),
    })
}

/// Starts an attempt at a queued job.
///
/// # Errors
/// When the job is not queued, or not due yet.
pub fn claim(job: &Job, worker: &JobName, now_ms: u64) -> Result<Job, JobTransitionError> {
    match job.state {
        JobState::Queued { not_before_ms, cancelling } if is_due(not_before_ms, now_ms) => {
            let attempt = Attempt { worker: worker.clone(), began_at_ms: now_ms };
            Ok(next_revision(job, JobState::Running { attempt, cancelling }, now_ms))
        }
        _ => Err(JobTransitionError::NotDue),
    }
}

/// Whether the backoff of a queued job has elapsed. One that seems longer than any backoff was set by a clock that was
/// ahead: waiting for that time could take for ever.
pub fn is_due(not_before_ms: u64, now_ms: u64) -> bool {
    not_before_ms <= now_ms || not_before_ms - now_ms > MAX_BACKOFF_MS
}

/// Takes over a job whose worker stopped renewing its lease. The lost attempt counts as failed; after the last one the
/// job is dead.
///
/// # Errors
/// When the job is not running, or this worker runs it.
pub fn take_over(job: &Job, worker: &JobName, now_ms: u64) -> Result<Job, JobTransitionError> {
    match &job.state {
        JobState::Running { attempt, cancelling } if attempt.worker != *worker => {
            let error = "its worker stopped renewing the lease: it was killed or cut off".into();
            let failed = FailedAttempt { attempt: attempt.clone(), failed_at_ms: now_ms, error };
            let attempt = Attempt { worker: worker.clone(), began_at_ms: now_ms };
            let next = JobState::Running { attempt, cancelling: *cancelling };
            Ok(after_failure(job, failed, next, now_ms))
        }
        _ => Err(JobTransitionError::LeaseLost),
    }
}

/// Renews the lease and records progress.
///
/// # Errors
/// When the worker has lost the lease.
pub fn report_progress(
    job: &Job,
    attempt: &Attempt,
    progress: JobProgress,
    now_ms: u64,
) -> Result<Job, JobTransitionError> {
    check_lease(job, attempt)?;
    Ok(Job { progress, ..next_revision(job, job.state.clone(), now_ms) })
}

/// Stores the checkpoint from which the next attempt resumes.
///
/// # Errors
/// When the worker has lost the lease.
pub fn save_checkpoint(
    job: &Job,
    attempt: &Attempt,
    checkpoint: JobCheckpoint,
    now_ms: u64,
) -> Result<Job, JobTransitionError> {
    check_lease(job, attempt)?;
    Ok(Job { checkpoint: Some(checkpoint), ..next_revision(job, job.state.clone(), now_ms) })
}

/// Ends the job successfully.
///
/// # Errors
/// When the worker has lost the lease.
pub fn succeed(
    job: &Job,
    attempt: &Attempt,
    verdict: Verdict,
    result: JobText,
    now_ms: u64,
) -> Result<Job, JobTransitionError> {
    check_lease(job, attempt)?;
    let attempt = attempt.clone();
    let succeeded = JobState::Succeeded { attempt, ended_at_ms: now_ms, verdict, result };
    Ok(next_revision(job, succeeded, now_ms))
}

/// Records a failed attempt: the job is queued again after a backoff jittered by `random`, or dead after the last one.
///
/// # Errors
/// When the worker has lost the lease.
pub fn fail(
    job: &Job,
    attempt: &Attempt,
    error: JobText,
    random: u64,
    now_ms: u64,
) -> Result<Job, JobTransitionError> {
    let cancelling = check_lease(job, attempt)?;
    let failed = FailedAttempt { attempt: attempt.clone(), failed_at_ms: now_ms, error };
    let backoff_ms = backoff_ms(job.failed_attempts.len() + 1, random);
    let not_before_ms = now_ms.saturating_add(backoff_ms);
    Ok(after_failure(job, failed, JobState::Queued { not_before_ms, cancelling }, now_ms))
}

/// Records a failure that a retry cannot fix: the job is dead at once.
///
/// # Errors
/// When the worker has lost the lease.
pub fn fail_permanently(
    job: &Job,
    attempt: &Attempt,
    reason: JobText,
    now_ms: u64,
) -> Result<Job, JobTransitionError> {
    let cancelling = check_lease(job, attempt)?;
    let failed =
        FailedAttempt { attempt: attempt.clone(), failed_at_ms: now_ms, error: reason.clone() };
    let dead = JobState::Dead { ended_at_ms: now_ms, reason, cancelling };
    let mut next = next_revision(job, dead, now_ms);
    next.failed_attempts.push(failed);
    Ok(next)
}

/// Releases the job of a worker that shuts down: it is queued again, and no attempt has failed.
///
/// # Errors
/// When the worker has lost the lease.
pub fn release(job: &Job, attempt: &Attempt, now_ms: u64) -> Result<Job, JobTransitionError> {
    let cancelling = check_lease(job, attempt)?;
    Ok(next_revision(job, JobState::Queued { not_before_ms: DUE_NOW, cancelling }, now_ms))
}

/// Requests cancellation. A worker undoes what the job has begun; a job without a checkpoint ends at once.
///
/// # Errors
/// When the job has ended, or is being cancelled.
pub fn cancel(job: &Job, now_ms: u64) -> Result<Job, JobTransitionError> {
    if !job.is_ended() && job.is_cancelling() {
        return Err(JobTransitionError::Cancelling);
    }
    let state = match &job.state {
        JobState::Queued { .. } if job.checkpoint.is_none() => {
            JobState::Cancelled { ended_at_ms: now_ms }
        }
        JobState::Queued { .. } => JobState::Queued { not_before_ms: DUE_NOW, cancelling: true },
        JobState::Running { attempt, .. } => {
            JobState::Running { attempt: attempt.clone(), cancelling: true }
        }
        ended => return Err(JobTransitionError::Ended(ended.name())),
    };
    Ok(next_revision(job, state, now_ms))
}

/// Ends a cancelled job, once its worker has undone what it had begun.
///
/// # Errors
/// When the worker has lost the lease.
pub fn finish_cancel(job: &Job, attempt: &Attempt, now_ms: u64) -> Result<Job, JobTransitionError> {
    check_lease(job, attempt)?;
    Ok(next_revision(job, JobState::Cancelled { ended_at_ms: now_ms }, now_ms))
}

/// Queues a dead job again from its checkpoint, with all attempts available. A job that died while it was being
/// cancelled stays cancelled: only the undoing is retried.
///
/// # Errors
/// When the job is not dead.
pub fn retry(job: &Job, now_ms: u64) -> Result<Job, JobTransitionError> {
    let JobState::Dead { cancelling, .. } = job.state else {
        return Err(JobTransitionError::NotDead(job.state.name()));
    };
    let queued = JobState::Queued { not_before_ms: DUE_NOW, cancelling };
    Ok(Job { failed_attempts: Vec::new(), ..next_revision(job, queued, now_ms) })
}

fn next_revision(job: &Job, state: JobState, now_ms: u64) -> Job {
    // A dead job keeps the keys of people, which a retry needs.
    let kind = if state.is_final() { job.kind.without_person_keys() } else { job.kind.clone() };
    Job { revision: job.revision + 1, kind, changed_at_ms: now_ms, state, ..job.clone() }
}

/// Checks that this attempt holds the lease, and returns whether the job is being cancelled.
fn check_lease(job: &Job, attempt: &Attempt) -> Result<bool, JobTransitionError> {
    match &job.state {
        JobState::Running { attempt: holder, cancelling } if holder == attempt => Ok(*cancelling),
        _ => Err(JobTransitionError::LeaseLost),
    }
}

/// The job after a failed attempt: in state `next`, or dead if it was the last attempt.
fn after_failure(job: &Job, failed: FailedAttempt, next: JobState, now_ms: u64) -> Job {
    let is_last = job.failed_attempts.len() + 1 >= MAX_ATTEMPTS;
    let reason =
        || JobText::from(format!("failed {MAX_ATTEMPTS} times, last error: {}", failed.error));
    let cancelling = job.is_cancelling();
    let dead = || JobState::Dead { ended_at_ms: now_ms, reason: reason(), cancelling };
    let state = if is_last { dead() } else { next };
    let mut next = next_revision(job, state, now_ms);
    next.failed_attempts.push(failed);
    next
}

/// Exponential backoff, half of it jitter, so that jobs that failed together do not retry together.
fn backoff_ms(failures: usize, random: u64) -> u64 {
    let doublings = u32::try_from(failures.saturating_sub(1)).unwrap_or(u32::MAX);
    let factor = 2_u64.checked_pow(doublings).unwrap_or(u64::MAX);
    let upper_bound = MIN_BACKOFF_MS.saturating_mul(factor).min(MAX_BACKOFF_MS);
    upper_bound / 2 + random % (upper_bound / 2 + 1)
}
