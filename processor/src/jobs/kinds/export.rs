//! An export as a job: a file in the folder of exports, named after budget and job, so that another try writes the same
//! file. One that is published takes the place of those that were before.

use std::sync::Arc;

use schemas::BudgetId;
use schemas::job::{ExportFormat, Verdict};
use storage::exports::Audience;

use super::{Done, Failure, Held, KindsParts, told};
use crate::export::{ExportError, ExportParts, ExportProgress, export};

impl From<ExportError> for Failure {
    fn from(error: ExportError) -> Self {
        match error {
            ExportError::Wrong(reason) => Self::InVain(reason),
            // A disk that is full may have room later, or another worker's has.
            ExportError::Away(_)
            | ExportError::Output { .. }
            | ExportError::Spool(_)
            | ExportError::Failed(_) => Self::Again(error.to_string()),
        }
    }
}

pub(super) async fn run(
    parts: &KindsParts,
    job: &Held,
    budget: &BudgetId,
    format: ExportFormat,
    publish: bool,
) -> Result<Done, Failure> {
    if !parts.definitions.is_loaded() {
        return Err(Failure::Again("the budgets are not known yet".to_owned()));
    }
    let definition = parts.definitions.catalog().get(budget.as_str()).cloned();
    let log = parts.current_log().await?;
    let places = ExportParts {
        log: parts.logs.open(&log).await?,
        topic: log.topic,
        store: Arc::clone(&parts.store),
        budget: definition
            .ok_or_else(|| Failure::InVain(format!("there is no budget `{budget}`")))?,
    };
    let audience = if publish { Audience::Everybody } else { Audience::Operators };
    let dir = parts.exports.dir(audience);
    tokio::fs::create_dir_all(&dir)
        .await
        .map_err(|error| Failure::Again(format!("{}: {error}", dir.display())))?;
    let path = parts.exports.path(budget, job.id(), format, audience);
    let progress = ExportProgress::default();
    let look = || {
        let ((done, of), people) = (progress.steps(), progress.people());
        (done, of, format!("{done} of {of} buckets read and written, {people} people so far"))
    };
    let manifest = told(job, look, export(&places, format, &path, &progress)).await?;
    if publish {
        let (exports, path, budget) = (parts.exports.clone(), path.clone(), budget.clone());
        let deleting = move || exports.delete_older_than(&path, &budget, format);
        let deleted = tokio::task::spawn_blocking(deleting).await;
        if let Err(error) = deleted.map_err(std::io::Error::other).flatten() {
            tracing::warn!(%error, "what was published before is not deleted yet: the next export does");
        }
    }
    let result = format!(
        "{} people as of version {}, {} bytes, sha256 {}: {}",
        manifest.facts.people,
        manifest.version,
        manifest.bytes,
        manifest.sha256,
        path.display(),
    );
    Ok(Done { verdict: Verdict::Clean, result: result.into() })
}
