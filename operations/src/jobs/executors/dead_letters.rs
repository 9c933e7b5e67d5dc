//! Replaying and dropping dead letters as jobs.
//!
//! The replay attempt has the job's id: the next worker resumes the attempt, and appends nothing twice. A refused
//! replay makes the job dead; it can be retried once the reason is gone, for example after an upgrade.

use std::sync::Arc;

use schemas::RecordAddress;
use schemas::job::Verdict;
use storage::log::dead_letters::DeadLetterIndex;

use super::{JobExecutorDeps, JobFailure, JobLease, JobOutcome};
use crate::dead_letters::{
    self, DeadLetterLog, JournalError, Prepared, ReplayAttempt, ReplayDeps, ReplayError,
    UnfinishedReplay,
};

impl From<ReplayError> for JobFailure {
    fn from(error: ReplayError) -> Self {
        match error {
            ReplayError::Refused(refusal) => Self::Permanent(refusal.to_string()),
            ReplayError::Append(error) => Self::Transient(error.to_string()),
            ReplayError::Read(error) => error.into(),
            ReplayError::Store(error) => error.into(),
        }
    }
}

impl From<JournalError> for JobFailure {
    fn from(error: JournalError) -> Self {
        match error {
            JournalError::Append(error) => Self::Transient(error.to_string()),
            JournalError::Read(error) => error.into(),
        }
    }
}

async fn dead_letter_log(deps: &JobExecutorDeps) -> Result<DeadLetterLog, JobFailure> {
    let log = deps.active_log().await?;
    let journal = Arc::clone(&deps.dead_letter_journal);
    Ok(DeadLetterLog { journal, number: log.number, log: deps.logs.open(&log).await? })
}

pub(super) async fn replay(
    deps: &JobExecutorDeps,
    job: &JobLease,
    dead_letter: RecordAddress,
    resume: bool,
) -> Result<JobOutcome, JobFailure> {
    let replay_deps = Arc::new(ReplayDeps {
        dead_letters: dead_letter_log(deps).await?,
        writer: Arc::clone(&deps.writer),
        store: Arc::clone(&deps.store),
    });
    let unfinished = if resume { UnfinishedReplay::Resume } else { UnfinishedReplay::Leave };
    let attempt = ReplayAttempt { id: job.id().0, unfinished };
    // From here on, cancelling the job checks the log for the appended record.
    job.save(&attempt.id).await?;
    let address = match dead_letters::prepare(&replay_deps, dead_letter, attempt).await {
        Err(ReplayError::Refused(refusal)) => return Ok(refused(&refusal)),
        Err(error) => return Err(error.into()),
        Ok(Prepared::Replayed(address)) => address,
        Ok(Prepared::Ready(ready)) => {
            // A stalled worker may have lost the job.
            job.heartbeat_unless_cancelling().await?;
            // An append that was sent is recorded in the journal even if the job's future is dropped.
            let appending =
                tokio::spawn(async move { dead_letters::append(&replay_deps, &ready).await });
            appending.await.map_err(|error| JobFailure::Transient(error.to_string()))??
        }
    };
    Ok(replayed_as(address))
}

/// Returns the outcome if the record has been appended.
pub(super) async fn replayed(
    deps: &JobExecutorDeps,
    dead_letter: RecordAddress,
) -> Result<Option<JobOutcome>, JobFailure> {
    let dead_letters = dead_letter_log(deps).await?;
    let Some(found) = DeadLetterIndex::read_one(dead_letters.journal.as_ref(), dead_letter).await?
    else {
        return Ok(None);
    };
    Ok(dead_letters.replayed(dead_letter, &found).await?.map(replayed_as))
}

/// A refusal is an answer to the operator. No retry changes it, so the job is not dead.
fn refused(reason: &impl ToString) -> JobOutcome {
    JobOutcome {
        verdict: Verdict::Incomplete,
        result: format!("refused: {}", reason.to_string()).into(),
    }
}

fn replayed_as(address: RecordAddress) -> JobOutcome {
    JobOutcome { verdict: Verdict::Clean, result: format!("replayed as {address}").into() }
}

pub(super) async fn drop_one(
    deps: &JobExecutorDeps,
    dead_letter: RecordAddress,
) -> Result<JobOutcome, JobFailure> {
    for dropped in
        dead_letters::drop_dead_letters(&dead_letter_log(deps).await?, &[dead_letter]).await?
    {
        if let Err(refusal) = dropped {
            return Ok(refused(&refusal));
        }
    }
    Ok(JobOutcome { verdict: Verdict::Clean, result: "dropped".into() })
}
