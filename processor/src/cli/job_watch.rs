//! Watching a background job until it ends.
//!
//! Owns the polling, the progress display, and noticing that no processor executes jobs. Submitting a job and printing
//! its result are the commands' own.

use std::time::Duration;

use parking_lot::Mutex;
use runtime::clock::now_ms;
use runtime::progress::ProgressUpdate;
use schemas::job::{Job, JobId, JobState, Verdict};
use storage::jobs::JobStore;
use storage::store::StoreError;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::job_text::job_line;
use super::progress_display::show_while;
use super::{EXIT_DIFFERENT, EXIT_FAILED};

const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// Pause between two reads of all jobs. A running job changes its row every two seconds.
const ACTIVITY_POLL_INTERVAL: Duration = Duration::from_secs(5);
/// When no job changes for this long, no processor executes jobs.
const INACTIVITY_TIMEOUT: Duration = Duration::from_secs(60);

/// Why a job can no longer be watched.
#[derive(Debug, thiserror::Error)]
pub(super) enum WatchError {
    #[error("job {0} has been deleted")]
    Deleted(JobId),
    #[error(
        "no processor has executed jobs for {timeout_s} s; job {0} is kept: `jobs show {0}`",
        timeout_s = INACTIVITY_TIMEOUT.as_secs()
    )]
    NoWorker(JobId),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Shows the job's progress until it ends. Returns the ended job, or `None` if `stop` was cancelled first.
pub(super) async fn watch_job(
    label: &str,
    jobs: &dyn JobStore,
    job: Job,
    stop: CancellationToken,
) -> Result<Option<Job>, WatchError> {
    let id = job.id;
    let latest = Mutex::new(job);
    let current = || {
        let job = latest.lock();
        let message = format!("{} {}", job.state.name(), job.progress.message);
        ProgressUpdate {
            done: job.progress.done,
            total: job.progress.total,
            message,
            line: job_line(&job),
        }
    };
    let polling = async {
        loop {
            match jobs.job(id).await {
                Ok(Some(job)) if job.is_ended() => return Ok(job),
                Ok(Some(job)) => *latest.lock() = job,
                Ok(None) => return Err(WatchError::Deleted(id)),
                // The store is polled again soon.
                Err(StoreError::Unavailable(_)) => {}
                Err(error) => return Err(error.into()),
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    };
    show_while(label, current, stop.run_until_cancelled(polling)).await.transpose()
}

/// Waits until the jobs have not changed for [`INACTIVITY_TIMEOUT`].
///
/// A job that waits for others is no reason: those change while they run.
pub(super) async fn wait_for_inactivity(jobs: &dyn JobStore, watched: JobId) -> WatchError {
    let (mut known, mut changed_at) = (Vec::new(), Instant::now());
    loop {
        tokio::time::sleep(ACTIVITY_POLL_INTERVAL).await;
        // An unavailable store proves nothing about the processors.
        let Ok(rows) = jobs.job_rows().await else {
            changed_at = Instant::now();
            continue;
        };
        let mut current: Vec<_> = rows.jobs.iter().map(|job| (job.id, job.revision)).collect();
        current.sort_unstable();
        let is_backing_off = rows.jobs.iter().any(|job| match job.state {
            JobState::Queued { not_before_ms, .. } => job.id == watched && not_before_ms > now_ms(),
            _ => false,
        });
        if current != known || is_backing_off {
            (known, changed_at) = (current, Instant::now());
        } else if changed_at.elapsed() >= INACTIVITY_TIMEOUT {
            return WatchError::NoWorker(watched);
        }
    }
}

/// The exit code that an ended job stands for.
pub(super) fn exit_code(ended: &Job) -> u8 {
    match &ended.state {
        JobState::Succeeded { verdict: Verdict::Clean, .. } => 0,
        JobState::Succeeded { verdict: Verdict::Different, .. } => EXIT_DIFFERENT,
        _ => EXIT_FAILED,
    }
}
