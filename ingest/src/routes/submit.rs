//! `POST /v1/budgets/{budget}/submissions` and `PUT /v1/budgets/{budget}/submissions/me`

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use bytes::Bytes;
use identity::PersonScope;
use runtime::clock::now_ms;
use runtime::limits::LimitTicket;
use runtime::principal::PresentedCredentials;
use runtime::problem::Problem;
use schemas::{Budget, BudgetId, PersonId, ReceiptSigner, SubmissionId};

use crate::checked_append::{Prepared, Rejected};
use crate::idempotency_key::IdempotencyKey;
use crate::media_type::RequireJson;
use crate::parse::{self, ParsedSubmission};
use crate::pending::{AppendOutcome, PendingSubmission};
use crate::preconditions::Preconditions;
use crate::response::{AcceptedSubmission, PersonPath};
use crate::service::IngestService;
use crate::signals::RequestOrigin;
use crate::{problems, response};

#[utoipa::path(
    post,
    path = "/v1/budgets/{budget}/submissions",
    tag = "submissions",
    operation_id = "submit",
    summary = "Submit an allocation",
    params(
        ("budget" = String, Path, description = "The budget's id", example = "taxes"),
        IdempotencyKey,
    ),
    request_body(content = ref("#/components/schemas/Submission"), content_type = "application/json"),
    responses(
        (status = 202, description = "The submission is durable", body = ref("#/components/schemas/Accepted"),
            content_type = "application/json",
            links(
                ("aggregate" = (operation_id = "getAggregate",
                    parameters(("budget" = "$response.body#/budget"), ("at_least" = "$response.body#/receipt")))),
                ("allocation" = (operation_id = "getAllocation",
                    parameters(("budget" = "$response.body#/budget"), ("person" = "$request.body#/person"),
                        ("at_least" = "$response.body#/receipt")))),
                ("withdrawal" = (operation_id = "withdraw",
                    parameters(("budget" = "$response.body#/budget"), ("person" = "$request.body#/person")))),
            )),
    ),
)]
pub(super) async fn submit(
    State(service): State<Arc<IngestService>>,
    Path(budget): Path<String>,
    presented: PresentedCredentials,
    _: RequireJson,
    key: IdempotencyKey,
    (origin, ticket): (RequestOrigin, LimitTicket),
    body: Bytes,
) -> Result<Response, Problem> {
    respond_to(&service, (&origin, &ticket), &budget, &key, |budget| {
        parse_as(&service.person_scope(budget, &presented)?, budget, &body)
    })
    .await
}

/// Sets the caller's submission.
#[utoipa::path(
    put,
    path = "/v1/budgets/{budget}/submissions/me",
    tag = "submissions",
    operation_id = "submitOwn",
    summary = "Set the caller's allocation",
    description = "Under the identity rules `anonymous`, `code`, `email` and `token`.",
    params(
        ("budget" = String, Path, description = "The budget's id", example = "taxes"),
        IdempotencyKey,
    ),
    request_body(content = ref("#/components/schemas/Submission"), content_type = "application/json"),
    responses(
        (status = 202, description = "The submission is durable", body = ref("#/components/schemas/Accepted"),
            content_type = "application/json",
            links(
                ("aggregate" = (operation_id = "getAggregate",
                    parameters(("budget" = "$response.body#/budget"), ("at_least" = "$response.body#/receipt")))),
                ("allocation" = (operation_id = "getOwnAllocation",
                    parameters(("budget" = "$response.body#/budget"), ("at_least" = "$response.body#/receipt")))),
                ("withdrawal" = (operation_id = "withdrawOwn",
                    parameters(("budget" = "$response.body#/budget")))),
            )),
    ),
)]
pub(super) async fn submit_own(
    State(service): State<Arc<IngestService>>,
    Path(budget): Path<String>,
    presented: PresentedCredentials,
    _: RequireJson,
    (conditions, key): (Preconditions, IdempotencyKey),
    (origin, ticket): (RequestOrigin, LimitTicket),
    body: Bytes,
) -> Result<Response, Problem> {
    respond_to(&service, (&origin, &ticket), &budget, &key, |budget| {
        let person_scope = service.person_scope(budget, &presented)?;
        person_scope.own_person()?;
        let parsed = parse_as(&person_scope, budget, &body)?;
        conditions.refuse_any()?;
        Ok(parsed)
    })
    .await
}

/// Parses a body, and sets the person for whom the request may act.
fn parse_as(
    person_scope: &PersonScope,
    budget: &Budget,
    body: &[u8],
) -> Result<(ParsedSubmission, PathOf), Problem> {
    let (mut parsed, path) = match person_scope.is_person() {
        true => (parse::own_submission(body, budget)?, PathOf::Me),
        false => (parse::submission(body, budget)?, PathOf::Named),
    };
    parsed.person = person_scope.person_in_body(parsed.person)?;
    Ok((parsed, path))
}

/// Whether `Location` is `…/submissions/me` or names the person.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PathOf {
    Me,
    Named,
}

async fn respond_to(
    service: &IngestService,
    (origin, ticket): (&RequestOrigin, &LimitTicket),
    budget: &str,
    key: &IdempotencyKey,
    parse: impl Fn(&Budget) -> Result<(ParsedSubmission, PathOf), Problem>,
) -> Result<Response, Problem> {
    let budget = service.open_budget(budget);
    let prepare = |budget: &Budget| {
        let (mut parsed, path) = parse(budget)?;
        parsed.id =
            key.submission_id(parsed.id, budget, parsed.person.as_ref(), &service.person_secret)?;
        let (pending, person) = pending(service, origin, budget, parsed)?;
        let path = match path {
            PathOf::Me => PersonPath::me(),
            PathOf::Named => PersonPath::of(&person),
        };
        Ok((pending, path))
    };
    append(service, ticket, budget, prepare).await
}

/// Completes a parsed submission of a request.
pub(super) fn pending(
    service: &IngestService,
    origin: &RequestOrigin,
    budget: &Budget,
    parsed: ParsedSubmission,
) -> Result<(PendingSubmission, PersonId), Problem> {
    let persons = service.persons(budget)?;
    let now_ms = now_ms();
    let origin = service.origin(budget, origin, now_ms);
    Ok(service.pending_submission((budget, &persons), parsed, origin, now_ms))
}

/// Charges one submission or withdrawal to the limits, appends it and builds the response.
pub(super) async fn append(
    service: &IngestService,
    ticket: &LimitTicket,
    budget: Result<Arc<Budget>, Problem>,
    prepare: impl Fn(&Budget) -> Result<(PendingSubmission, PersonPath), Problem>,
) -> Result<Response, Problem> {
    let prepare = |budget: &Budget| {
        let (pending, person) = prepare(budget)?;
        let id = pending.id;
        Ok(Prepared { submissions: vec![pending], items: 1, rest: (person, id) })
    };
    let appended = async {
        let budget = budget?;
        let id = budget.id.clone();
        Ok((id, service.append_checked(ticket, budget, prepare).await?))
    };
    let (budget, (outcomes, (person, id))) =
        appended.await.map_err(|rejected: Rejected| rejected.counted(&service.metrics))?;
    respond(outcomes.first().copied(), &budget, &person, id, &service.receipt_signer)
}

fn respond(
    outcome: Option<AppendOutcome>,
    budget: &BudgetId,
    person: &PersonPath,
    id: SubmissionId,
    signer: &ReceiptSigner,
) -> Result<Response, Problem> {
    match outcome {
        Some(AppendOutcome::Accepted { address, repeated, id_checked }) => {
            let submission = AcceptedSubmission { id, address, repeated, id_checked };
            Ok(response::accepted(budget, person, &submission, signer))
        }
        Some(AppendOutcome::InFlight) => Err(problems::in_flight()),
        Some(AppendOutcome::IdReused) => Err(problems::id_reused()),
        Some(AppendOutcome::Full) => Err(problems::budget_full()),
        Some(AppendOutcome::StandingUnknown) => Err(problems::standing_unknown()),
        Some(AppendOutcome::Closed) => Err(problems::budget_closed()),
        Some(AppendOutcome::ClosedMeanwhile) => Err(problems::closed_meanwhile()),
        Some(AppendOutcome::Unavailable) => Err(problems::log_unavailable()),
        Some(AppendOutcome::Unknown) | None => Err(problems::outcome_unknown(id)),
    }
}
