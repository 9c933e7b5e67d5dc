//! `PUT /v1/budgets/{budget}`

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Extension;
use axum::extract::{Path, State};
use axum::response::Response;
use bytes::Bytes;
use http::header::ETAG;
use http::{HeaderMap, StatusCode};
use runtime::admin::Principal;
use runtime::http::{FailedPrecondition, RequestId, WriteConditions, etag_of};
use runtime::problem::{Problem, ProblemKind};
use runtime::random::random_256_bits;
use schemas::{Budget, BudgetId, PersonSalt, PersonSaltState};
use storage::control::{ChangeRefused, ControlTopicError, define as define_change};

use crate::detach_on_drop::detach_on_drop;
use crate::media_type::RequireJson;
use crate::parse;
use crate::problems::{self, RETRY_AFTER};
use crate::response;
use crate::service::IngestService;

#[utoipa::path(
    put,
    path = "/v1/budgets/{budget}",
    tag = "budgets",
    operation_id = "defineBudget",
    summary = "Create or change a budget",
    params(
        ("budget" = String, Path, description = "The budget's id", example = "taxes"),
        ("If-Match" = Option<String>, Header, description = "Only change the definition with this `ETag`"),
        ("If-None-Match" = Option<String>, Header, description = "`*`: only create the budget"),
    ),
    request_body(content = ref("#/components/schemas/BudgetDefinition"), content_type = "application/json"),
    responses(
        (status = 200, description = "The budget was changed", body = ref("#/components/schemas/Budget"),
            content_type = "application/json",
            links(
                ("definition" = (operation_id = "getBudget", parameters(("budget" = "$response.body#/id")))),
                ("aggregate" = (operation_id = "getAggregate", parameters(("budget" = "$response.body#/id")))),
                ("deletion" = (operation_id = "deleteBudget", parameters(("budget" = "$response.body#/id")))),
            )),
        (status = 201, description = "The budget was created", body = ref("#/components/schemas/Budget"),
            content_type = "application/json",
            links(
                ("definition" = (operation_id = "getBudget", parameters(("budget" = "$response.body#/id")))),
                ("aggregate" = (operation_id = "getAggregate", parameters(("budget" = "$response.body#/id")))),
                ("deletion" = (operation_id = "deleteBudget", parameters(("budget" = "$response.body#/id")))),
            )),
    ),
    security(("administrator" = ["admin"])),
)]
pub(super) async fn define(
    State(service): State<Arc<IngestService>>,
    principal: Principal,
    Path(id): Path<String>,
    _: RequireJson,
    request: Option<Extension<RequestId>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let id = BudgetId::parse(&id).map_err(|fault| {
        Problem::new(ProblemKind::Malformed).detail(format!("the budget id in the path {fault}"))
    })?;
    let mut definition = parse::definition(id, &body)?;
    if let Err(setting) = service.require_support(definition.identity) {
        return Err(Problem::new(ProblemKind::InvalidBudget)
            .detail(format!(
                "the service has no `{setting}`, and could not know the budget's persons"
            ))
            .fault("/identity", format!("needs the setting `{setting}`")));
    }
    // An existing budget keeps its own.
    let salt = random_256_bits().map_err(|_| Problem::new(ProblemKind::Internal))?;
    definition.person_salt = PersonSaltState::Salted(PersonSalt::from_bytes(salt));
    let conditions = WriteConditions::of(&headers);
    // A change is logged even if the client hangs up.
    let changed = detach_on_drop(async move {
        let (budget, is_new) = change(&service, &definition, &conditions).await?;
        tracing::info!(
            budget = %budget.id,
            revision = budget.revision,
            by = principal.name(),
            request = request.as_ref().map(|id| id.as_str()),
            "budget defined"
        );
        Ok::<_, Problem>((budget, is_new))
    });
    let (budget, is_new) = changed.await?;
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    let body = to_json(&budget);
    let etag = etag_of(&body);
    let mut response = response::json(status, body);
    response.headers_mut().insert(ETAG, etag);
    Ok(response)
}

/// Serializes a definition as the api does, so that both show the same ETag.
pub(super) fn to_json(budget: &Budget) -> Vec<u8> {
    // Serialization cannot fail: a budget holds only strings, numbers and string keys.
    serde_json::to_vec(budget).unwrap_or_default()
}

async fn change(
    service: &IngestService,
    definition: &Budget,
    conditions: &WriteConditions,
) -> Result<(Arc<Budget>, bool), Problem> {
    let is_new = AtomicBool::new(false);
    let decide = |current: Option<&Budget>| {
        is_new.store(current.is_none(), Ordering::Relaxed);
        if !conditions.is_empty() {
            let etag = current.map(|current| etag_of(&to_json(current)));
            match conditions.check(etag.as_ref()) {
                Ok(()) => {}
                // The change may have been made although its response was lost (RFC 9110, 13.1.1).
                Err(FailedPrecondition::IfMatch)
                    if matches!(define_change(current, definition), Ok(None)) =>
                {
                    return Ok(None);
                }
                Err(_) => return Err(ChangeRefused::PreconditionFailed),
            }
        }
        define_change(current, definition)
    };
    let changed = service.definitions.change(&definition.id, &decide).await;
    let budget = changed.map_err(|error| {
        refused(
            error,
            "the budget has submissions: its categories, their order, its identity rule and its publish step can no longer change",
        )
    })?;
    Ok((budget, is_new.load(Ordering::Relaxed)))
}

/// Returns the problem of a change or deletion that was not made.
pub(super) fn refused(error: ControlTopicError, frozen: &str) -> Problem {
    match error {
        ControlTopicError::Refused(ChangeRefused::Frozen) => {
            Problem::new(ProblemKind::BudgetFrozen).detail(frozen)
        }
        ControlTopicError::Refused(ChangeRefused::Closed) => {
            Problem::new(ProblemKind::BudgetClosed).detail(
                "the budget is closed; it can be deleted once it is reopened, by a later `closes_at` or none",
            )
        }
        ControlTopicError::Refused(ChangeRefused::Forgotten) => Problem::new(ProblemKind::Forgotten)
            .detail("the budget's persons are forgotten: it can be neither reopened nor deleted"),
        ControlTopicError::Refused(
            refused @ (ChangeRefused::NotClosed | ChangeRefused::NoSalt),
        ) => Problem::new(ProblemKind::WrongState).detail(refused.to_string()),
        ControlTopicError::Refused(ChangeRefused::Unknown) => problems::budget_not_found(),
        ControlTopicError::Refused(ChangeRefused::NotUnderstood) => {
            problems::definition_not_understood("it is left unchanged")
        }
        ControlTopicError::Refused(ChangeRefused::PreconditionFailed) => {
            Problem::new(ProblemKind::PreconditionFailed).detail(
                "`If-Match` or `If-None-Match` does not hold for the budget's current definition, which is left unchanged; \
                 `GET` shows it with its `ETag`",
            )
        }
        ControlTopicError::Unavailable(_) => Problem::new(ProblemKind::Unavailable)
            .detail("the definition could not be stored, or the store did not confirm it: send it again")
            .retry_after(RETRY_AFTER),
    }
}
