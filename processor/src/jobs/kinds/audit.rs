//! An audit as a job. What differs is its result, and no failure.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use schemas::job::Verdict;
use tokio::time::sleep;

use super::{Done, Failure, Held, KindsParts};
use crate::audit::{AuditError, AuditParts, AuditProgress, Report, audit};

const TELL_INTERVAL: Duration = Duration::from_millis(500);

pub(super) async fn run(parts: &KindsParts, job: &Held) -> Result<Done, Failure> {
    let places = AuditParts {
        log: Arc::clone(&parts.log),
        topic: parts.topic.clone(),
        store: Arc::clone(&parts.store),
        cache: Some(Arc::clone(&parts.cache)),
        apis: Vec::new(),
    };
    let progress = AuditProgress::default();
    let telling = async {
        loop {
            let (folded, records) = progress.records();
            job.tell(folded, records, format!("{folded} of {records} records compared"));
            sleep(TELL_INTERVAL).await;
        }
    };
    let audited = tokio::select! {
        audited = audit(&places, &progress) => audited,
        () = telling => return Err(Failure::Again("it was told of for ever".to_owned())),
    };
    let (folded, records) = progress.records();
    job.tell(folded, records, format!("{folded} of {records} records compared"));
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
