//! The steps from one state of a job to the next. Each answers the job as it is then, one revision on, or why it cannot
//! be taken; the store puts it in the place of the one that it follows, or says that somebody else was faster.

use super::{
    Attempt, FailedAttempt, Job, JobCheckpoint, JobId, JobKind, JobName, JobProgress, JobState,
    JobText, Priority, Verdict,
};

/// So often a job is tried before it is parked as dead.
pub const MAX_ATTEMPTS: usize = 5;

/// So many jobs of each priority may be queued or running: a flood of one takes no room from the others.
pub const MAX_OPEN_JOBS: usize = 250;

/// The pause after the first failure is at most this, and at least half of it; it doubles with each.
pub const SHORTEST_BACKOFF_MS: u64 = 5_000;
/// No pause is longer.
pub const LONGEST_BACKOFF_MS: u64 = 300_000;

/// Due whatever a clock says.
const AT_ONCE: u64 = 0;

/// Why a step cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JobRefused {
    /// There is no such job, or no more.
    #[error("there is no job {0}: it never was, or it ended so long ago that it is not kept")]
    Missing(JobId),
    /// The queue of its priority is full.
    #[error(
        "{MAX_OPEN_JOBS} jobs of priority {0} are queued or running already: wait, or cancel some"
    )]
    Full(Priority),
    /// It is over.
    #[error("the job has ended: it is {0}")]
    Ended(&'static str),
    /// It does not wait for a worker, or not yet.
    #[error("the job is not queued, or not due yet")]
    NotDue,
    /// Somebody else has it, or nobody.
    #[error("the job is not run by this worker any more")]
    NotHeld,
    /// It is wanted to end already.
    #[error("the job is being cancelled already")]
    Cancelling,
    /// Only a dead one is retried.
    #[error("only a dead job is retried: this one is {0}")]
    NotDead(&'static str),
}

/// What somebody asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewJob {
    /// A new id.
    pub id: JobId,
    /// What is to be done.
    pub kind: JobKind,
    /// How urgent it is.
    pub priority: Priority,
    /// Who asks.
    pub asked_by: JobName,
}

/// Asks for a job, beside those that there are.
///
/// # Errors
/// When too many of its priority are waiting.
pub fn submit(new: NewJob, others: &[Job], now_ms: u64) -> Result<Job, JobRefused> {
    let NewJob { id, kind, priority, asked_by } = new;
    let open = others.iter().filter(|job| job.priority == priority && !job.is_ended()).count();
    if open >= MAX_OPEN_JOBS {
        return Err(JobRefused::Full(priority));
    }
    Ok(Job {
        id,
        revision: 1,
        kind,
        priority,
        asked_by,
        created_at_ms: now_ms,
        changed_at_ms: now_ms,
        state: JobState::Queued { not_before_ms: AT_ONCE, cancelling: false },
        failed: Vec::new(),
        progress: JobProgress::default(),
        checkpoint: None,
    })
}

/// A worker begins a job that waits.
///
/// # Errors
/// When it does not, or not yet.
pub fn claim(job: &Job, worker: &JobName, now_ms: u64) -> Result<Job, JobRefused> {
    match job.state {
        JobState::Queued { not_before_ms, cancelling } if not_before_ms <= now_ms => {
            let attempt = Attempt { worker: worker.clone(), began_at_ms: now_ms };
            Ok(follow(job, JobState::Running { attempt, cancelling }, now_ms))
        }
        _ => Err(JobRefused::NotDue),
    }
}

/// A worker goes on with a job whose worker has fallen silent. That was a try: after the last one it is dead.
///
/// # Errors
/// When nobody has it, or this worker itself.
pub fn take_over(job: &Job, worker: &JobName, now_ms: u64) -> Result<Job, JobRefused> {
    match &job.state {
        JobState::Running { attempt, cancelling } if attempt.worker != *worker => {
            let error = "its worker fell silent: it was killed, or cut off".into();
            let failed = FailedAttempt { attempt: attempt.clone(), failed_at_ms: now_ms, error };
            let attempt = Attempt { worker: worker.clone(), began_at_ms: now_ms };
            let next = JobState::Running { attempt, cancelling: *cancelling };
            Ok(after_failure(job, failed, next, now_ms))
        }
        _ => Err(JobRefused::NotHeld),
    }
}

/// Its worker says that it lives, and how far it has come.
///
/// # Errors
/// When somebody else has it by now.
pub fn tell(
    job: &Job,
    attempt: &Attempt,
    progress: JobProgress,
    now_ms: u64,
) -> Result<Job, JobRefused> {
    held(job, attempt)?;
    Ok(Job { progress, ..follow(job, job.state.clone(), now_ms) })
}

/// Its worker stores what whoever goes on after it has to know.
///
/// # Errors
/// When somebody else has it by now.
pub fn save(
    job: &Job,
    attempt: &Attempt,
    checkpoint: JobCheckpoint,
    now_ms: u64,
) -> Result<Job, JobRefused> {
    held(job, attempt)?;
    Ok(Job { checkpoint: Some(checkpoint), ..follow(job, job.state.clone(), now_ms) })
}

/// It is done.
///
/// # Errors
/// When somebody else has it by now.
pub fn succeed(
    job: &Job,
    attempt: &Attempt,
    verdict: Verdict,
    result: JobText,
    now_ms: u64,
) -> Result<Job, JobRefused> {
    held(job, attempt)?;
    let attempt = attempt.clone();
    Ok(follow(job, JobState::Succeeded { attempt, ended_at_ms: now_ms, verdict, result }, now_ms))
}

/// A try came to nothing: it is tried again after a pause, which `random` makes longer or shorter; after the last one it
/// is dead.
///
/// # Errors
/// When somebody else has it by now.
pub fn fail(
    job: &Job,
    attempt: &Attempt,
    error: JobText,
    random: u64,
    now_ms: u64,
) -> Result<Job, JobRefused> {
    let cancelling = held(job, attempt)?;
    let failed = FailedAttempt { attempt: attempt.clone(), failed_at_ms: now_ms, error };
    let pause_ms = backoff_ms(job.failed.len() + 1, random);
    let again = JobState::Queued { not_before_ms: now_ms.saturating_add(pause_ms), cancelling };
    Ok(after_failure(job, failed, again, now_ms))
}

/// A try came to nothing, and another would come to nothing either: nothing helps but an operator.
///
/// # Errors
/// When somebody else has it by now.
pub fn park(job: &Job, attempt: &Attempt, reason: JobText, now_ms: u64) -> Result<Job, JobRefused> {
    let cancelling = held(job, attempt)?;
    let failed =
        FailedAttempt { attempt: attempt.clone(), failed_at_ms: now_ms, error: reason.clone() };
    let dead = JobState::Dead { ended_at_ms: now_ms, reason, cancelling };
    let mut next = follow(job, dead, now_ms);
    next.failed.push(failed);
    Ok(next)
}

/// Its worker ends before the job does: somebody else goes on, and nothing has failed.
///
/// # Errors
/// When somebody else has it by now.
pub fn hand_back(job: &Job, attempt: &Attempt, now_ms: u64) -> Result<Job, JobRefused> {
    let cancelling = held(job, attempt)?;
    Ok(follow(job, JobState::Queued { not_before_ms: AT_ONCE, cancelling }, now_ms))
}

/// Somebody wants it to end. What has begun something is given up by a worker; what has not ends at once.
///
/// # Errors
/// When it has ended, or is wanted to already.
pub fn cancel(job: &Job, now_ms: u64) -> Result<Job, JobRefused> {
    if !job.is_ended() && job.is_cancelling() {
        return Err(JobRefused::Cancelling);
    }
    let state = match &job.state {
        JobState::Queued { .. } if job.checkpoint.is_none() => {
            JobState::Cancelled { ended_at_ms: now_ms }
        }
        JobState::Queued { .. } => JobState::Queued { not_before_ms: AT_ONCE, cancelling: true },
        JobState::Running { attempt, .. } => {
            JobState::Running { attempt: attempt.clone(), cancelling: true }
        }
        ended => return Err(JobRefused::Ended(ended.name())),
    };
    Ok(follow(job, state, now_ms))
}

/// Its worker has given up what it had begun, as somebody wanted.
///
/// # Errors
/// When somebody else has it by now.
pub fn cancelled(job: &Job, attempt: &Attempt, now_ms: u64) -> Result<Job, JobRefused> {
    held(job, attempt)?;
    Ok(follow(job, JobState::Cancelled { ended_at_ms: now_ms }, now_ms))
}

/// A dead one is tried again, as often as a new one, from where it was. What was called off stays called off: giving it up
/// is what is tried again.
///
/// # Errors
/// When it is not dead.
pub fn retry(job: &Job, now_ms: u64) -> Result<Job, JobRefused> {
    let JobState::Dead { cancelling, .. } = job.state else {
        return Err(JobRefused::NotDead(job.state.name()));
    };
    let queued = JobState::Queued { not_before_ms: AT_ONCE, cancelling };
    Ok(Job { failed: Vec::new(), ..follow(job, queued, now_ms) })
}

fn follow(job: &Job, state: JobState, now_ms: u64) -> Job {
    Job { revision: job.revision + 1, changed_at_ms: now_ms, state, ..job.clone() }
}

/// Whether it is wanted to end, if this attempt has it.
fn held(job: &Job, attempt: &Attempt) -> Result<bool, JobRefused> {
    match &job.state {
        JobState::Running { attempt: on, cancelling } if on == attempt => Ok(*cancelling),
        _ => Err(JobRefused::NotHeld),
    }
}

/// `next`, unless that failure was the last that there may be.
fn after_failure(job: &Job, failed: FailedAttempt, next: JobState, now_ms: u64) -> Job {
    let last = job.failed.len() + 1 >= MAX_ATTEMPTS;
    let reason =
        || JobText::from(format!("failed {MAX_ATTEMPTS} times, at last: {}", failed.error));
    let cancelling = job.is_cancelling();
    let dead = || JobState::Dead { ended_at_ms: now_ms, reason: reason(), cancelling };
    let state = if last { dead() } else { next };
    let mut next = follow(job, state, now_ms);
    next.failed.push(failed);
    next
}

/// The pause after so many failures: half of it is fixed, the other half random, so that those who failed together do not
/// come again together.
fn backoff_ms(failures: usize, random: u64) -> u64 {
    let doublings = u32::try_from(failures.saturating_sub(1)).unwrap_or(u32::MAX);
    let factor = 2_u64.checked_pow(doublings).unwrap_or(u64::MAX);
    let longest = SHORTEST_BACKOFF_MS.saturating_mul(factor).min(LONGEST_BACKOFF_MS);
    longest / 2 + random % (longest / 2 + 1)
}
