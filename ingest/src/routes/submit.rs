//! `POST /v1/budgets/{budget}/submissions`

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use bytes::Bytes;
use runtime::clock::now_ms;
use runtime::problem::Problem;
use schemas::{Budget, BudgetId, PersonId, SubmissionId};

use crate::idempotency_key::IdempotencyKey;
use crate::media_type::RequireJson;
use crate::parse;
use crate::pending::{AppendOutcome, PendingSubmission};
use crate::service::IngestService;
use crate::{problems, response};

#[utoipa::path(
    post,
    path = "/v1/budgets/{budget}/submissions",
    tag = "submissions",
    operation_id = "submit",
    summary = "Submit an allocation",
    params(
        ("budget" = String, Path, description = "The budget's id", example = "taxes"),
        ("Idempotency-Key" = Option<String>, Header,
            description = "A repeated request with the same key is one submission",
            min_length = 1, max_length = 255, pattern = "^[!-~]+$"),
    ),
    request_body(content = ref("#/components/schemas/Submission"), content_type = "application/json"),
    responses(
        (status = 202, description = "The submission is durable", body = ref("#/components/schemas/Accepted"),
            content_type = "application/json"),
    ),
)]
pub(super) async fn submit(
    State(service): State<Arc<IngestService>>,
    Path(budget): Path<String>,
    _: RequireJson,
    key: IdempotencyKey,
    body: Bytes,
) -> Result<Response, Problem> {
    let parsed = parse_body(&service, &budget, &key, &body).await;
    let (pending, person) =
        parsed.inspect_err(|problem| service.metrics.count_rejected(problem.kind(), 1))?;
    append(&service, pending, &person).await
}

async fn parse_body(
    service: &IngestService,
    budget: &str,
    key: &IdempotencyKey,
    body: &[u8],
) -> Result<(PendingSubmission, PersonId), Problem> {
    let budget = service.open_budget(budget)?;
    let parse = |budget: &Budget| {
        let mut parsed = parse::submission(body, budget)?;
        parsed.id =
            key.submission_id(parsed.id, &budget.id, parsed.person.as_ref(), &service.hasher)?;
        Ok(parsed)
    };
    let (budget, parsed) = service.parse_against_frozen(budget, parse, |_| true).await?;
    Ok(service.pending_submission(&budget, parsed, now_ms()))
}

/// Appends one submission or withdrawal and builds the response.
pub(super) async fn append(
    service: &IngestService,
    pending: PendingSubmission,
    person: &PersonId,
) -> Result<Response, Problem> {
    let budget = pending.submission.budget.clone();
    let id = pending.submission.id;
    let appended = service.append(vec![pending]).await;
    let outcomes =
        appended.inspect_err(|problem| service.metrics.count_rejected(problem.kind(), 1))?;
    respond(outcomes.first().copied(), &budget, person, id)
}

fn respond(
    outcome: Option<AppendOutcome>,
    budget: &BudgetId,
    person: &PersonId,
    id: SubmissionId,
) -> Result<Response, Problem> {
    match outcome {
        Some(AppendOutcome::Accepted { receipt, repeated }) => {
            Ok(response::accepted(budget, person, id, receipt, repeated))
        }
        Some(AppendOutcome::InFlight) => Err(problems::in_flight()),
        Some(AppendOutcome::IdReused) => Err(problems::id_reused()),
        Some(AppendOutcome::Closed) => Err(problems::budget_closed()),
        Some(AppendOutcome::ClosedMeanwhile) => Err(problems::closed_meanwhile()),
        Some(AppendOutcome::Unavailable) => Err(problems::log_unavailable()),
        Some(AppendOutcome::Unknown) | None => Err(problems::outcome_unknown(id)),
    }
}
