//! `POST /v1/budgets/{budget}/submissions/batch`

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Path, State};
use axum::response::Response;
use bytes::Bytes;
use http::StatusCode;
use identity::PersonScope;
use runtime::clock::now_ms;
use runtime::http::RequestId;
use runtime::limits::LimitTicket;
use runtime::principal::PresentedCredentials;
use runtime::problem::{Problem, ProblemKind};
use schemas::{Budget, BudgetId, ReceiptSigner, SubmissionId};

use crate::checked_append::{Prepared, Rejected};
use crate::idempotency_key::IdempotencyKey;
use crate::media_type::MediaType;
use crate::parse::{self, ParsedBatch, ParsedSubmission};
use crate::pending::{AppendOutcome, PendingSubmission};
use crate::response::AcceptedSubmission;
use crate::service::IngestService;
use crate::{problems, response};

#[utoipa::path(
    post,
    path = "/v1/budgets/{budget}/submissions/batch",
    tag = "submissions",
    operation_id = "submitBatch",
    summary = "Submit at most 1,000 allocations",
    description = "For the roles `submitter` and `admin`. Where no token of the role `submitter` is configured, clients on the \
        server's machine need no token under the identity rules `required` and `optional`.",
    params(
        ("budget" = String, Path, description = "The budget's id", example = "taxes"),
    ),
    request_body(content = ref("#/components/schemas/Batch"), content_type = "application/json"),
    responses(
        (status = 200, description = "One result for each item, in order",
            body = ref("#/components/schemas/BatchResults"), content_type = "application/json"),
    ),
    security((), ("administrator" = ["submitter"])),
)]
pub(super) async fn submit_batch(
    State(service): State<Arc<IngestService>>,
    Path(budget): Path<String>,
    (presented, ticket): (PresentedCredentials, LimitTicket),
    media_type: MediaType,
    key: IdempotencyKey,
    request: Option<Extension<RequestId>>,
    body: Bytes,
) -> Result<Response, Problem> {
    let appended = append(&service, (&presented, &ticket), &budget, media_type, &key, &body).await;
    let (budget, results) = appended.map_err(|rejected| rejected.counted(&service.metrics))?;
    service.metrics.observe_batch(results.len());
    for result in &results {
        if let ItemResult::Rejected(problem) = result {
            service.metrics.count_rejected(problem.kind(), 1);
        }
    }
    let request = request.as_ref().map_or("", |id| id.as_str());
    let body = write_results(&budget, results, request, &service.receipt_signer);
    Ok(response::json(StatusCode::OK, body))
}

/// The result of one batch item.
enum ItemResult {
    /// The item is not a valid submission.
    Rejected(Problem),
    Appended(SubmissionId, AppendOutcome),
}

async fn append(
    service: &IngestService,
    (presented, ticket): (&PresentedCredentials, &LimitTicket),
    budget: &str,
    media_type: MediaType,
    key: &IdempotencyKey,
    body: &[u8],
) -> Result<(BudgetId, Vec<ItemResult>), Rejected> {
    // Once the body has come: a proxy that still sends it would take an earlier answer for a broken connection.
    let known = service.budget(budget).ok();
    let submitter = service.authorizer.submitter(presented, known.as_deref())?;
    let budget = service.open_budget(budget)?;
    // An ignored key would promise idempotency that a batch does not have.
    if *key != IdempotencyKey::Absent {
        let problem = Problem::new(ProblemKind::Malformed).detail(
            "`Idempotency-Key` identifies one submission; in a batch, give each item a `submission_id`",
        );
        return Err(problem.into());
    }
    let prepare = |budget: &Budget| {
        let person_scope = service.authorizer.scope_of_submitter(&submitter, budget)?;
        let batch = match media_type {
            MediaType::Json => parse::json_array(body, budget),
            MediaType::Ndjson => parse::ndjson(body, budget),
        }?;
        prepare(service, budget, &person_scope, batch)
    };
    let id = budget.id.clone();
    let (outcomes, mut results) = service.append_checked(ticket, budget, prepare).await?;
    let appended = results.iter_mut().filter_map(|result| match result {
        ItemResult::Appended(_, outcome) => Some(outcome),
        ItemResult::Rejected(_) => None,
    });
    for (slot, outcome) in appended.zip(outcomes) {
        *slot = outcome;
    }
    Ok((id, results))
}

/// Completes the valid items of a batch. Their sender's address says nothing about their persons, so no signal is kept.
fn prepare(
    service: &IngestService,
    budget: &Budget,
    person_scope: &PersonScope,
    batch: ParsedBatch,
) -> Result<Prepared<Vec<ItemResult>>, Problem> {
    let persons = service.persons(budget)?;
    let now_ms = now_ms();
    let mut submissions: Vec<PendingSubmission> = Vec::with_capacity(batch.len());
    let mut results = Vec::with_capacity(batch.len());
    for item in batch {
        results.push(match item.and_then(|item| of_scope(person_scope, item)) {
            Ok(parsed) => {
                let (pending, _) =
                    service.pending_submission((budget, &persons), parsed, None, now_ms);
                let id = pending.id;
                submissions.push(pending);
                // Replaced by the outcome of the append.
                ItemResult::Appended(id, AppendOutcome::Unknown)
            }
            Err(problem) => ItemResult::Rejected(problem),
        });
    }
    Ok(Prepared { submissions, items: results.len(), rest: results })
}

/// Replaces the named person by the one for whom the request may act.
fn of_scope(
    person_scope: &PersonScope,
    mut item: ParsedSubmission,
) -> Result<ParsedSubmission, Problem> {
    item.person = person_scope.person_in_body(item.person.take())?;
    Ok(item)
}

fn write_results(
    budget: &BudgetId,
    results: Vec<ItemResult>,
    request: &str,
    signer: &ReceiptSigner,
) -> Vec<u8> {
    let mut body = Vec::with_capacity(32 + results.len() * response::ACCEPTED_ITEM_BYTES);
    body.extend_from_slice(br#"{"results":["#);
    for (index, result) in results.into_iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        let (problem, id) = match result {
            ItemResult::Appended(id, AppendOutcome::Accepted { address, repeated, id_checked }) => {
                let submission = AcceptedSubmission { id, address, repeated, id_checked };
                response::write_accepted_item(&mut body, budget, &submission, signer);
                continue;
            }
            ItemResult::Appended(id, AppendOutcome::InFlight) => (problems::in_flight(), Some(id)),
            ItemResult::Appended(id, AppendOutcome::IdReused) => (problems::id_reused(), Some(id)),
            ItemResult::Appended(id, AppendOutcome::Full) => (problems::budget_full(), Some(id)),
            ItemResult::Appended(id, AppendOutcome::StandingUnknown) => {
                (problems::standing_unknown(), Some(id))
            }
            ItemResult::Appended(id, AppendOutcome::Closed) => {
                (problems::budget_closed(), Some(id))
            }
            ItemResult::Appended(id, AppendOutcome::ClosedMeanwhile) => {
                (problems::closed_meanwhile(), Some(id))
            }
            ItemResult::Appended(id, AppendOutcome::Unavailable) => {
                (problems::log_unavailable(), Some(id))
            }
            ItemResult::Appended(id, AppendOutcome::Unknown) => {
                (problems::outcome_unknown(id), Some(id))
            }
            ItemResult::Rejected(problem) => (problem, None),
        };
        response::write_problem_item(&mut body, &problem.instance(request), id);
    }
    body.extend_from_slice(b"]}");
    body
}
