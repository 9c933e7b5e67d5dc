//! `DELETE /v1/budgets/{budget}/submissions/{person}`

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use runtime::clock::now_ms;
use runtime::problem::{Problem, ProblemKind};
use schemas::PersonId;

use super::submit::append;
use crate::idempotency_key::IdempotencyKey;
use crate::pending::PendingSubmission;
use crate::service::IngestService;

#[utoipa::path(
    delete,
    path = "/v1/budgets/{budget}/submissions/{person}",
    tag = "submissions",
    operation_id = "withdraw",
    summary = "Withdraw a person's allocation",
    params(
        ("budget" = String, Path, description = "The budget's id", example = "taxes"),
        ("person" = String, Path, description = "The person's id"),
        ("Idempotency-Key" = Option<String>, Header,
            description = "A repeated request with the same key is one submission",
            min_length = 1, max_length = 255, pattern = "^[!-~]+$"),
    ),
    responses(
        (status = 202, description = "The withdrawal is durable", body = ref("#/components/schemas/Accepted"),
            content_type = "application/json"),
    ),
)]
pub(super) async fn withdraw(
    State(service): State<Arc<IngestService>>,
    Path((budget, person)): Path<(String, String)>,
    key: IdempotencyKey,
) -> Result<Response, Problem> {
    withdraw_person(&service, &budget, &person, &key).await
}

/// Handles the person whose id equals the last segment of the batch route.
#[utoipa::path(
    delete,
    path = "/v1/budgets/{budget}/submissions/batch",
    tag = "submissions",
    operation_id = "withdrawPersonNamedBatch",
    summary = "Withdraw the allocation of the person named `batch`",
    description = "As for every other person.",
    params(
        ("budget" = String, Path, description = "The budget's id", example = "taxes"),
        ("Idempotency-Key" = Option<String>, Header,
            description = "A repeated request with the same key is one submission",
            min_length = 1, max_length = 255, pattern = "^[!-~]+$"),
    ),
    responses(
        (status = 202, description = "The withdrawal is durable", body = ref("#/components/schemas/Accepted"),
            content_type = "application/json"),
    ),
)]
pub(super) async fn withdraw_person_named_batch(
    State(service): State<Arc<IngestService>>,
    Path(budget): Path<String>,
    key: IdempotencyKey,
) -> Result<Response, Problem> {
    withdraw_person(&service, &budget, "batch", &key).await
}

async fn withdraw_person(
    service: &IngestService,
    budget: &str,
    person: &str,
    key: &IdempotencyKey,
) -> Result<Response, Problem> {
    let parsed = parse_request(service, budget, person, key).await;
    let (pending, person) =
        parsed.inspect_err(|problem| service.metrics.count_rejected(problem.kind(), 1))?;
    append(service, pending, &person).await
}

async fn parse_request(
    service: &IngestService,
    budget: &str,
    person: &str,
    key: &IdempotencyKey,
) -> Result<(PendingSubmission, PersonId), Problem> {
    let budget = service.open_budget(budget)?;
    let person = PersonId::parse(person).map_err(|fault| {
        Problem::new(ProblemKind::Malformed).detail(format!("the person in the path {fault}"))
    })?;
    let id = key.submission_id(None, &budget.id, Some(&person), &service.hasher)?;
    // A withdrawal freezes nothing: it says nothing about categories, and nobody counts before the first allocation.
    Ok((service.pending_withdrawal(&budget, &person, id, now_ms()), person))
}
