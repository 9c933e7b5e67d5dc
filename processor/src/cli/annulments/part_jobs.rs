//! Submits the jobs of an annulment or a restoration, and watches each until it ends.

use runtime::clock::now_ms;
use runtime::console;
use schemas::job::{Job, JobId, JobKind, JobState, NewJob, Priority, Verdict};
use storage::jobs::{JobStore, submit};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::super::job_text::job_line;
use super::super::job_watch::{wait_for_inactivity, watch_job};
use super::super::jobs::current_user;
use super::{AnnulmentsCommandError, CommandEnd};

/// Runs a job to its end. One that was submitted before and has not ended is joined.
///
/// # Errors
/// When jobs cannot be read or submitted, or no processor runs them.
pub(super) async fn run_job(
    label: &str,
    jobs: &dyn JobStore,
    kind: JobKind,
    stop: &CancellationToken,
) -> Result<CommandEnd, AnnulmentsCommandError> {
    let is_open = |job: &Job| job.kind == kind && !job.is_ended() && !job.is_cancelling();
    let job = match jobs.job_rows().await?.jobs.into_iter().find(is_open) {
        Some(job) => job,
        None => {
            let now_ms = now_ms();
            let id = JobId::new(now_ms, Uuid::new_v4());
            // A command whose operator waits goes before scheduled work.
            let priority = Priority::High;
            let new = NewJob { id, kind, priority, requested_by: current_user() };
            submit(jobs, new, now_ms).await?
        }
    };
    let id = job.id;
    let ended = tokio::select! {
        watched = watch_job(label, jobs, job, stop.clone()) => watched?,
        no_worker = wait_for_inactivity(jobs, id) => return Err(no_worker.into()),
    };
    let Some(ended) = ended else { return Ok(CommandEnd::Interrupted) };
    console::out(&format!("{}\n", job_line(&ended)));
    match ended.state {
        JobState::Succeeded { verdict: Verdict::Clean, .. } => Ok(CommandEnd::Done),
        _ => Ok(CommandEnd::NotDone),
    }
}
