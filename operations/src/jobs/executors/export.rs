//! An export as a job: a file named after budget and job, so that another attempt writes the same file.
//!
//! A published export replaces earlier ones.

use std::sync::Arc;

use schemas::BudgetId;
use schemas::job::{ExportFormat, Verdict};
use storage::exports::Audience;

use super::{JobExecutorDeps, JobFailure, JobLease, JobOutcome, report_while};
use crate::export::{ExportDeps, ExportError, ExportProgress, export};

impl From<ExportError> for JobFailure {
    fn from(error: ExportError) -> Self {
        match error {
            ExportError::Backend(error) => error.into(),
            // A full disk may have space later, or another worker has space.
            ExportError::Output { .. } | ExportError::Spool(_) | ExportError::Failed(_) => {
                Self::Transient(error.to_string())
            }
        }
    }
}

pub(super) async fn run(
    deps: &JobExecutorDeps,
    job: &JobLease,
    budget: &BudgetId,
    format: ExportFormat,
    publish: bool,
) -> Result<JobOutcome, JobFailure> {
    let definition = deps.definition(budget)?;
    let log = deps.active_log().await?;
    let export_deps = ExportDeps {
        log: deps.logs.open(&log).await?,
        topic: log.topic,
        store: Arc::clone(&deps.store),
        budget: definition,
    };
    let audience = if publish { Audience::Everybody } else { Audience::Operators };
    let dir = deps.exports.dir(audience);
    tokio::fs::create_dir_all(&dir)
        .await
        .map_err(|error| JobFailure::Transient(format!("{}: {error}", dir.display())))?;
    let path = deps.exports.path(budget, job.id(), format, audience);
    let progress = ExportProgress::default();
    let current = || {
        let ((done, total), people) = (progress.steps(), progress.people());
        (done, total, format!("{done} of {total} buckets read and written, {people} people so far"))
    };
    let manifest =
        report_while(job, current, export(&export_deps, format, &path, &progress)).await?;
    if publish {
        let (exports, path, budget) = (deps.exports.clone(), path.clone(), budget.clone());
        let deleting = move || exports.delete_older_than(&path, &budget, format);
        let deleted = tokio::task::spawn_blocking(deleting).await;
        if let Err(error) = deleted.map_err(std::io::Error::other).flatten() {
            tracing::warn!(%error, "failed to delete earlier published exports, the next export retries");
        }
    }
    let result = format!(
        "{} people as of version {}, {} bytes, sha256 {}: {}",
        manifest.summary.people,
        manifest.version,
        manifest.bytes,
        manifest.sha256,
        path.display(),
    );
    Ok(JobOutcome { verdict: Verdict::Clean, result: result.into() })
}
