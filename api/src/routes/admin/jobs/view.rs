//! JSON view of a job, without the checkpoint, which is internal to the job's executor.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::header::LOCATION;
use http::{HeaderValue, StatusCode};
use schemas::job::{FailedAttempt, Job, JobKind, JobState};
use schemas::{AnnulmentEffect, ResultsSummary};
use serde::Serialize;
use utoipa::ToSchema;

use crate::answer::{Decimal, percent};
use crate::rfc3339::rfc3339;

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct JobView {
    id: String,
    kind: &'static str,
    /// Rebuild: whether the new generation is only verified. Annulment, restoration: whether only the effect is computed.
    #[serde(skip_serializing_if = "Option::is_none")]
    dry_run: Option<bool>,
    /// Export, report, annulment, restoration: the budget.
    #[serde(skip_serializing_if = "Option::is_none")]
    budget: Option<String>,
    /// Export: the file format.
    #[serde(skip_serializing_if = "Option::is_none")]
    format: Option<&'static str>,
    /// Export: whether it is published to everybody.
    #[serde(skip_serializing_if = "Option::is_none")]
    publish: Option<bool>,
    /// Replay or drop: the dead letter.
    #[serde(rename = "letter", skip_serializing_if = "Option::is_none")]
    dead_letter: Option<String>,
    /// Replay: whether to resume a replay that another job began.
    #[serde(skip_serializing_if = "Option::is_none")]
    resume: Option<bool>,
    /// Annulment, restoration: the annulment's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    annulment: Option<String>,
    /// Annulment, restoration: what it changes, once that is computed.
    #[serde(skip_serializing_if = "Option::is_none")]
    effect: Option<EffectView>,
    priority: &'static str,
    #[serde(rename = "asked_by")]
    requested_by: String,
    state: &'static str,
    /// Whether cancellation was requested and the job has not stopped yet.
    cancelling: bool,
    created_at: Option<String>,
    changed_at: Option<String>,
    ended_at: Option<String>,
    /// When a failed job is retried.
    due_at: Option<String>,
    /// The worker that runs the job, or has completed it.
    worker: Option<String>,
    progress: ProgressView,
    /// Verdict of a succeeded job: `clean`, `different` or `incomplete`.
    verdict: Option<&'static str>,
    /// Result of a succeeded job, or why a dead job died.
    result: Option<String>,
    /// Attempts so far, including the running one.
    attempts: usize,
    failed: Vec<FailedAttemptView>,
}

#[derive(Debug, Serialize, ToSchema)]
struct ProgressView {
    done: u64,
    /// 0 while unknown.
    #[serde(rename = "of")]
    total: u64,
    #[serde(rename = "line")]
    message: String,
}

#[derive(Debug, Serialize, ToSchema)]
struct FailedAttemptView {
    worker: String,
    began_at: Option<String>,
    failed_at: Option<String>,
    error: String,
}

/// What an annulment or a restoration changes, by numbers of people.
#[derive(Debug, Serialize, ToSchema)]
struct EffectView {
    selected: u64,
    /// Nothing is known of their submissions.
    unknown: u64,
    /// Annulled already, or not annulled when restored.
    unchanged: u64,
    /// Withdrawn.
    without_ballot: u64,
    /// They change the results.
    changed: u64,
    before: ResultsView,
    after: ResultsView,
}

#[derive(Debug, Serialize, ToSchema)]
struct ResultsView {
    people: u64,
    /// Average of each category in percent, rounded to two decimals, in the budget's order; empty without people.
    #[schema(value_type = Vec<f64>)]
    average_percent: Vec<Decimal>,
}

impl EffectView {
    fn of(effect: &AnnulmentEffect) -> Self {
        Self {
            selected: effect.selected,
            unknown: effect.unknown,
            unchanged: effect.unchanged,
            without_ballot: effect.without_ballot,
            changed: effect.changed,
            before: ResultsView::of(&effect.before),
            after: ResultsView::of(&effect.after),
        }
    }
}

impl ResultsView {
    fn of(results: &ResultsSummary) -> Self {
        // An average is at most 10,000.
        let average = |hundredths: &u64| percent(u16::try_from(*hundredths).unwrap_or(u16::MAX));
        let average_percent = results.averages.iter().map(average).collect();
        Self { people: results.people, average_percent }
    }
}

impl JobView {
    pub(super) fn of(job: &Job) -> Self {
        let (mut dry_run, mut budget, mut format) = (None, None, None);
        let (mut publish, mut dead_letter, mut resume) = (None, None, None);
        let mut annulment = None;
        match &job.kind {
            JobKind::Rebuild { dry_run: verify_only } => dry_run = Some(*verify_only),
            JobKind::Export { budget: id, format: file_format, publish: published } => {
                budget = Some(id.to_string());
                format = Some(file_format.name());
                publish = Some(*published);
            }
            JobKind::Report { budget: id } => budget = Some(id.to_string()),
            JobKind::ReplayDeadLetter { dead_letter: id, resume: resumes } => {
                dead_letter = Some(id.to_string());
                resume = Some(*resumes);
            }
            JobKind::DropDeadLetter { dead_letter: id } => dead_letter = Some(id.to_string()),
            JobKind::Annul { annulment: request } => {
                dry_run = Some(request.dry_run);
                budget = Some(request.budget.to_string());
                annulment = Some(request.id.to_string());
            }
            JobKind::RestoreAnnulment { budget: of, annulment: id, dry_run: computes_only } => {
                dry_run = Some(*computes_only);
                budget = Some(of.to_string());
                annulment = Some(id.to_string());
            }
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
            dead_letter,
            resume,
            annulment,
            effect: job.annulment_effect().as_ref().map(EffectView::of),
            priority: job.priority.name(),
            requested_by: job.requested_by.to_string(),
            state: job.state.name(),
            cancelling: job.is_cancelling(),
            created_at: rfc3339(job.created_at_ms),
            changed_at: rfc3339(job.changed_at_ms),
            ended_at: job.ended_at_ms().and_then(rfc3339),
            due_at,
            worker,
            progress: ProgressView {
                done: job.progress.done,
                total: job.progress.total,
                message: job.progress.message.to_string(),
            },
            verdict,
            result,
            attempts: job.attempts(),
            failed: job.failed_attempts.iter().map(FailedAttemptView::of).collect(),
        }
    }
}

impl FailedAttemptView {
    fn of(failed: &FailedAttempt) -> Self {
        Self {
            worker: failed.attempt.worker.to_string(),
            began_at: rfc3339(failed.attempt.began_at_ms),
            failed_at: rfc3339(failed.failed_at_ms),
            error: failed.error.to_string(),
        }
    }
}

/// Builds a response with the job and its `Location`.
pub(super) fn located(status: StatusCode, job: &Job) -> Response {
    let mut response = (status, Json(JobView::of(job))).into_response();
    // A UUID is visible ASCII.
    if let Ok(location) = HeaderValue::try_from(format!("/v1/admin/jobs/{}", job.id)) {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}
