//! A job as it is shown. What its runner needs to go on is not: it means nothing to anybody else.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::header::LOCATION;
use http::{HeaderValue, StatusCode};
use schemas::job::{FailedAttempt, Job, JobKind, JobState};
use serde::Serialize;

use super::super::rfc3339;

#[derive(Debug, Serialize)]
pub(crate) struct ShownJob {
    id: String,
    kind: &'static str,
    /// Of a rebuild: whether it is compared only.
    #[serde(skip_serializing_if = "Option::is_none")]
    dry_run: Option<bool>,
    /// Of an export: of which budget.
    #[serde(skip_serializing_if = "Option::is_none")]
    budget: Option<String>,
    /// Of an export: how it is written.
    #[serde(skip_serializing_if = "Option::is_none")]
    format: Option<&'static str>,
    /// Of an export: whether it is handed out to everybody.
    #[serde(skip_serializing_if = "Option::is_none")]
    publish: Option<bool>,
    /// Of what is decided about a dead letter: which.
    #[serde(skip_serializing_if = "Option::is_none")]
    letter: Option<String>,
    /// Of a replay: whether it goes on with what somebody else has begun.
    #[serde(skip_serializing_if = "Option::is_none")]
    resume: Option<bool>,
    priority: &'static str,
    asked_by: String,
    state: &'static str,
    /// Whether somebody wants it to end and what it began is not given up yet.
    cancelling: bool,
    created_at: Option<String>,
    changed_at: Option<String>,
    ended_at: Option<String>,
    /// Of one that waits after a failure: when it is tried again.
    due_at: Option<String>,
    /// Who runs it, or has done it.
    worker: Option<String>,
    progress: Progress,
    /// Of one that was done: `clean`, `different` or `incomplete`.
    verdict: Option<&'static str>,
    /// What was found; of a dead one, why it is.
    result: Option<String>,
    /// Tries so far, the one that is on included.
    attempts: usize,
    failed: Vec<Failure>,
}

#[derive(Debug, Serialize)]
struct Progress {
    done: u64,
    /// 0 while it is not known.
    of: u64,
    line: String,
}

#[derive(Debug, Serialize)]
struct Failure {
    worker: String,
    began_at: Option<String>,
    failed_at: Option<String>,
    error: String,
}

impl ShownJob {
    pub(super) fn of(job: &Job) -> Self {
        let (mut dry_run, mut budget, mut format) = (None, None, None);
        let (mut publish, mut letter, mut resume) = (None, None, None);
        match &job.kind {
            JobKind::Rebuild { dry_run: only } => dry_run = Some(*only),
            JobKind::Export { budget: of, format: as_what, publish: handed_out } => {
                budget = Some(of.to_string());
                format = Some(as_what.name());
                publish = Some(*handed_out);
            }
            JobKind::ReplayDeadLetter { letter: which, resume: also } => {
                letter = Some(which.to_string());
                resume = Some(*also);
            }
            JobKind::DropDeadLetter { letter: which } => letter = Some(which.to_string()),
            JobKind::Audit | JobKind::WarmCaches | JobKind::Archive => {}
        }
        let (mut due_at, mut worker, mut verdict, mut result) = (None, None, None, None);
        match &job.state {
            JobState::Queued { not_before_ms: due_at_ms @ 1.., .. } => {
                due_at = rfc3339(*due_at_ms);
            }
            JobState::Running { attempt, .. } => worker = Some(attempt.worker.to_string()),
            JobState::Succeeded { attempt, verdict: found, result: text, .. } => {
                worker = Some(attempt.worker.to_string());
                verdict = Some(found.name());
                result = Some(text.to_string());
            }
            JobState::Dead { reason, .. } => result = Some(reason.to_string()),
            JobState::Queued { .. } | JobState::Cancelled { .. } => {}
        }
        Self {
            id: job.id.to_string(),
            kind: job.kind.name(),
            dry_run,
            budget,
            format,
            publish,
            letter,
            resume,
            priority: job.priority.name(),
            asked_by: job.asked_by.to_string(),
            state: job.state.name(),
            cancelling: job.is_cancelling(),
            created_at: rfc3339(job.created_at_ms),
            changed_at: rfc3339(job.changed_at_ms),
            ended_at: job.ended_at_ms().and_then(rfc3339),
            due_at,
            worker,
            progress: Progress {
                done: job.progress.done,
                of: job.progress.of,
                line: job.progress.line.to_string(),
            },
            verdict,
            result,
            attempts: job.attempts(),
            failed: job.failed.iter().map(Failure::of).collect(),
        }
    }
}

impl Failure {
    fn of(failed: &FailedAttempt) -> Self {
        Self {
            worker: failed.attempt.worker.to_string(),
            began_at: rfc3339(failed.attempt.began_at_ms),
            failed_at: rfc3339(failed.failed_at_ms),
            error: failed.error.to_string(),
        }
    }
}

/// A job, and where to look at it again.
pub(super) fn located(status: StatusCode, job: &Job) -> Response {
    let mut response = (status, Json(ShownJob::of(job))).into_response();
    // A UUID is visible ASCII.
    if let Ok(location) = HeaderValue::try_from(format!("/v1/admin/jobs/{}", job.id)) {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}
