//! An audit as a job. Differences are its result, not a failure.

use std::fmt::Write as _;
use std::sync::Arc;

use schemas::job::Verdict;

use super::{JobExecutorDeps, JobFailure, JobLease, JobOutcome, report_while};
use crate::audit::{AuditDeps, AuditReport, audit};
use crate::progress::Progress;

pub(super) async fn run(deps: &JobExecutorDeps, job: &JobLease) -> Result<JobOutcome, JobFailure> {
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
    let report = report_while(job, current, audit(&audit_deps, &progress)).await?;
    Ok(outcome(&report))
}

fn outcome(report: &AuditReport) -> JobOutcome {
    let AuditReport { differences, unchecked, records, .. } = report;
    // The counts come first, since a long result is truncated.
    let mut result = format!(
        "{records} records, {} budgets: {} differences, {} not compared",
        report.budgets.len(),
        differences.len(),
        unchecked.len(),
    );
    for difference in differences {
        let _ = write!(result, "\n{difference}");
    }
    for unchecked in unchecked {
        let _ = write!(result, "\nnot compared: {unchecked}");
    }
    JobOutcome { verdict: verdict_of(report), result: result.into() }
}

/// Returns the verdict of an audit.
pub(super) fn verdict_of(report: &AuditReport) -> Verdict {
    match (report.differences.is_empty(), report.unchecked.is_empty()) {
        (false, _) => Verdict::Different,
        (true, false) => Verdict::Incomplete,
        (true, true) => Verdict::Clean,
    }
}
