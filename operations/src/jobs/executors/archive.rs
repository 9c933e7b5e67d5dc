//! Archiving as a job: complete segments stay, and the next attempt resumes after them.

use schemas::job::Verdict;

use super::{JobExecutorDeps, JobFailure, JobLease, JobOutcome, report_while};
use crate::archive::{ArchiveDeps, ArchiveError, archive};
use crate::progress::Progress;

impl From<ArchiveError> for JobFailure {
    fn from(error: ArchiveError) -> Self {
        match error {
            ArchiveError::Backend(error) => error.into(),
            // A full disk may have space later; a gap fails all five attempts.
            ArchiveError::Write(error) => Self::Transient(error.to_string()),
            // A job does not trim.
            error @ (ArchiveError::Trim(_)
            | ArchiveError::Building(_)
            | ArchiveError::NewerRegistry) => Self::Permanent(error.to_string()),
        }
    }
}

pub(super) async fn run(deps: &JobExecutorDeps, job: &JobLease) -> Result<JobOutcome, JobFailure> {
    let Some(dir) = &deps.archive_dir else {
        return Err(JobFailure::Permanent(
            "no archive directory is configured: `archive.dir`".to_owned(),
        ));
    };
    let log = deps.active_log().await?;
    let archive_deps = ArchiveDeps::of(&log, deps.logs.as_ref(), &deps.store, dir).await?;
    let progress = Progress::default();
    let current = || {
        let (done, total) = progress.done_and_total();
        (done, total, format!("{done} of {total} records archived"))
    };
    let archived = report_while(job, current, archive(&archive_deps, &progress)).await?;
    let whole: u64 = archived.iter().map(|partition| partition.end.0).sum();
    let new: u64 = archived.iter().map(|it| it.end.0 - it.from.0).sum();
    let result = format!("{whole} records, {new} of them new: {}", archive_deps.dir.display());
    Ok(JobOutcome { verdict: Verdict::Clean, result: result.into() })
}
