//! `DELETE /v1/budgets/{budget}/submissions/{person}`

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use runtime::clock::now_ms;
use runtime::limits::LimitTicket;
use runtime::principal::PresentedCredentials;
use runtime::problem::{Problem, ProblemKind};
use schemas::{Budget, PersonId};

use super::submit::append;
use crate::idempotency_key::IdempotencyKey;
use crate::preconditions::Preconditions;
use crate::response::PersonPath;
use crate::service::IngestService;
use crate::signals::RequestOrigin;

#[utoipa::path(
    delete,
    path = "/v1/budgets/{budget}/submissions/{person}",
    tag = "submissions",
    operation_id = "withdraw",
    summary = "Withdraw a person's allocation",
    params(
        ("budget" = String, Path, description = "The budget's id", example = "taxes"),
        ("person" = String, Path, description = "The person's id"),
        IdempotencyKey,
    ),
    responses(
        (status = 202, description = "The withdrawal is durable", body = ref("#/components/schemas/Accepted"),
            content_type = "application/json",
            links(
                ("aggregate" = (operation_id = "getAggregate",
                    parameters(("budget" = "$response.body#/budget"), ("at_least" = "$response.body#/receipt")))),
            )),
    ),
)]
pub(super) async fn withdraw(
    State(service): State<Arc<IngestService>>,
    Path((budget, person)): Path<(String, String)>,
    presented: PresentedCredentials,
    (conditions, key): (Preconditions, IdempotencyKey),
    (origin, ticket): (RequestOrigin, LimitTicket),
) -> Result<Response, Problem> {
    withdraw_person(&service, (&origin, &ticket), &budget, (&conditions, &key), |budget| {
        named(&service, budget, &presented, &person)
    })
    .await
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
        IdempotencyKey,
    ),
    responses(
        (status = 202, description = "The withdrawal is durable", body = ref("#/components/schemas/Accepted"),
            content_type = "application/json",
            links(
                ("aggregate" = (operation_id = "getAggregate",
                    parameters(("budget" = "$response.body#/budget"), ("at_least" = "$response.body#/receipt")))),
            )),
    ),
)]
pub(super) async fn withdraw_person_named_batch(
    State(service): State<Arc<IngestService>>,
    Path(budget): Path<String>,
    presented: PresentedCredentials,
    (conditions, key): (Preconditions, IdempotencyKey),
    (origin, ticket): (RequestOrigin, LimitTicket),
) -> Result<Response, Problem> {
    withdraw_person(&service, (&origin, &ticket), &budget, (&conditions, &key), |budget| {
        named(&service, budget, &presented, "batch")
    })
    .await
}

/// Withdraws the caller's submission. Under rules where the client names persons, `me` is an ordinary id.
#[utoipa::path(
    delete,
    path = "/v1/budgets/{budget}/submissions/me",
    tag = "submissions",
    operation_id = "withdrawOwn",
    summary = "Withdraw the caller's allocation",
    description = "Under the identity rules `anonymous`, `code`, `email` and `token`; otherwise that of the person named `me`.",
    params(
        ("budget" = String, Path, description = "The budget's id", example = "taxes"),
        IdempotencyKey,
    ),
    responses(
        (status = 202, description = "The withdrawal is durable", body = ref("#/components/schemas/Accepted"),
            content_type = "application/json",
            links(
                ("aggregate" = (operation_id = "getAggregate",
                    parameters(("budget" = "$response.body#/budget"), ("at_least" = "$response.body#/receipt")))),
            )),
    ),
)]
pub(super) async fn withdraw_own(
    State(service): State<Arc<IngestService>>,
    Path(budget): Path<String>,
    presented: PresentedCredentials,
    (conditions, key): (Preconditions, IdempotencyKey),
    (origin, ticket): (RequestOrigin, LimitTicket),
) -> Result<Response, Problem> {
    withdraw_person(&service, (&origin, &ticket), &budget, (&conditions, &key), |budget| {
        if budget.identity.is_named_by_client() {
            return named(&service, budget, &presented, "me");
        }
        let person = service.person_scope(budget, &presented)?.own_person()?;
        Ok((person, PersonPath::me()))
    })
    .await
}

fn named(
    service: &IngestService,
    budget: &Budget,
    presented: &PresentedCredentials,
    person: &str,
) -> Result<(PersonId, PersonPath), Problem> {
    let person_scope = service.person_scope(budget, presented)?;
    let person = PersonId::parse(person).map_err(|fault| {
        Problem::new(ProblemKind::Malformed).detail(format!("the person in the path {fault}"))
    })?;
    let person = person_scope.person_in_path(person)?;
    let path = if person_scope.is_person() { PersonPath::me() } else { PersonPath::of(&person) };
    Ok((person, path))
}

async fn withdraw_person(
    service: &IngestService,
    (origin, ticket): (&RequestOrigin, &LimitTicket),
    budget: &str,
    (conditions, key): (&Preconditions, &IdempotencyKey),
    person: impl Fn(&Budget) -> Result<(PersonId, PersonPath), Problem>,
) -> Result<Response, Problem> {
    let budget = service.open_budget(budget);
    let prepare = |budget: &Budget| {
        let (person, path) = person(budget)?;
        conditions.refuse_any()?;
        let id = key.submission_id(None, budget, Some(&person), &service.person_secret)?;
        let now_ms = now_ms();
        let origin = service.origin(budget, origin, now_ms);
        let mut pending = service.pending_withdrawal(budget, &person, id, origin, now_ms)?;
        // No later request has this id: the withdrawal of nobody need not be remembered.
        pending.client_supplied_id &= !key.is_of_gateway();
        Ok((pending, path))
    };
    append(service, ticket, budget, prepare).await
}
