//! `POST /v1/budgets/{budget}/submissions`

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use bytes::Bytes;
use runtime::clock::now_ms;
use runtime::limits::LimitTicket;
use runtime::problem::Problem;
use schemas::{Budget, BudgetId, PersonId, ReceiptSigner, SubmissionId};

use crate::charge::charge;
use crate::idempotency_key::IdempotencyKey;
use crate::media_type::RequireJson;
use crate::parse;
use crate::pending::{AppendOutcome, PendingSubmission};
use crate::service::IngestService;
use crate::{problems, response};

pub(super) async fn submit(
    State(service): State<Arc<IngestService>>,
    Path(budget): Path<String>,
    _: RequireJson,
    key: IdempotencyKey,
    ticket: LimitTicket,
    body: Bytes,
) -> Result<Response, Problem> {
    let parsed = parse_body(&service, &budget, &key, &body).await;
    let (pending, person) =
        parsed.inspect_err(|problem| service.metrics.count_rejected(problem.kind(), 1))?;
    append(&service, &ticket, pending, &person).await
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

/// Charges one submission or withdrawal to the limits, appends it and builds the response.
pub(super) async fn append(
    service: &IngestService,
    ticket: &LimitTicket,
    pending: PendingSubmission,
    person: &PersonId,
) -> Result<Response, Problem> {
    let budget = pending.submission.budget.clone();
    let id = pending.submission.id;
    charge(ticket, std::slice::from_ref(&pending), 1)
        .await
        .inspect_err(|problem| service.metrics.count_rejected(problem.kind(), 1))?;
    let appended = service.append(vec![pending]).await;
    let outcomes =
        appended.inspect_err(|problem| service.metrics.count_rejected(problem.kind(), 1))?;
    respond(outcomes.first().copied(), &budget, person, id, &service.receipt_signer)
}

fn respond(
    outcome: Option<AppendOutcome>,
    budget: &BudgetId,
    person: &PersonId,
    id: SubmissionId,
    signer: &ReceiptSigner,
) -> Result<Response, Problem> {
    match outcome {
        Some(AppendOutcome::Accepted { receipt, repeated }) => {
            Ok(response::accepted(budget, person, id, (receipt, signer), repeated))
        }
        Some(AppendOutcome::InFlight) => Err(problems::in_flight()),
        Some(AppendOutcome::IdReused) => Err(problems::id_reused()),
        Some(AppendOutcome::Closed) => Err(problems::budget_closed()),
        Some(AppendOutcome::ClosedMeanwhile) => Err(problems::closed_meanwhile()),
        Some(AppendOutcome::Unavailable) => Err(problems::log_unavailable()),
        Some(AppendOutcome::Unknown) | None => Err(problems::outcome_unknown(id)),
    }
}
