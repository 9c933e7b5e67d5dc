//! A report as a job: two files named after budget and job, so that another attempt writes the same files.

use std::sync::Arc;

use schemas::BudgetId;
use storage::exports::Audience;

use super::audit::verdict_of;
use super::{JobExecutorDeps, JobFailure, JobLease, JobOutcome, report_while};
use crate::audit::AuditDeps;
use crate::progress::Progress;
use crate::report::report;

pub(super) async fn run(
    deps: &JobExecutorDeps,
    job: &JobLease,
    budget: &BudgetId,
) -> Result<JobOutcome, JobFailure> {
    let definition = deps.definition(budget)?;
    let log = deps.active_log().await?;
    let audit_deps = AuditDeps {
        log: deps.logs.open(&log).await?,
        topic: log.topic,
        store: Arc::clone(&deps.store),
        cache: Some(Arc::clone(&deps.cache)),
        apis: Vec::new(),
    };
    let progress = Progress::default();
    let current = || {
        let (done, total) = progress.done_and_total();
        (done, total, format!("{done} of {total} records compared"))
    };
    let gathered = report_while(job, current, report(&audit_deps, &definition, &progress)).await?;
    let (report, audited) = gathered;
    let dir = deps.exports.dir(Audience::Operators);
    let path = dir.join(format!("{budget}-{}.report", job.id()));
    let writing = move || {
        std::fs::create_dir_all(&dir)?;
        report.write(&path).map(|paths| (report.people(), paths))
    };
    let written = tokio::task::spawn_blocking(writing).await;
    let written = written.map_err(std::io::Error::other).flatten();
    // A full disk may have space later, or another worker has space.
    let (people, [json, html]) = written
        .map_err(|error| JobFailure::Transient(format!("the report cannot be written: {error}")))?;
    let result = format!("{people} people: {}, {}", html.display(), json.display());
    Ok(JobOutcome { verdict: verdict_of(&audited), result: result.into() })
}
