//! An audit as a job. What differs is its result, and no failure.

use std::fmt::Write as _;
use std::sync::Arc;

use schemas::job::Verdict;

use super::{Done, Failure, Held, KindsParts, told};
use crate::audit::{AuditError, AuditParts, AuditProgress, Report, audit};

pub(super) async fn run(parts: &KindsParts, job: &Held) -> Result<Done, Failure> {
    let log = parts.current_log().await?;
    let places = AuditParts {
        log: parts.logs.open(&log).await?,
        topic: log.topic,
        store: Arc::clone(&parts.store),
        cache: Some(Arc::clone(&parts.cache)),
        apis: Vec::new(),
    };
    let progress = AuditProgress::default();
    let look = || {
        let (folded, records) = progress.records();
        (folded, records, format!("{folded} of {records} records compared"))
    };
    let audited = told(job, look, audit(&places, &progress)).await;
    match audited {
        Ok(report) => Ok(done(&report)),
        Err(AuditError::Away(reason)) => Err(Failure::Again(reason)),
        Err(AuditError::Wrong(reason)) => Err(Failure::InVain(reason)),
    }
}

fn done(report: &Report) -> Done {
    let Report { differences, unchecked, records, .. } = report;
    let verdict = match (differences.is_empty(), unchecked.is_empty()) {
        (false, _) => Verdict::Different,
        (true, false) => Verdict::Incomplete,
        (true, true) => Verdict::Clean,
    };
    // The numbers first: what does not fit is cut.
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
    Done { verdict, result: result.into() }
}
