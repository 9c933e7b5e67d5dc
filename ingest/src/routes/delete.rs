//! `DELETE /v1/budgets/{budget}`: only a budget without people, whose rules no submission has frozen.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Path, State};
use http::{HeaderMap, StatusCode};
use runtime::admin::Principal;
use runtime::http::{RequestId, WriteConditions, etag_of};
use runtime::problem::Problem;
use schemas::{Budget, BudgetId};
use storage::control::{ChangeRefused, delete as delete_definition};

use super::define::{refused, to_json};
use crate::detach_on_drop::detach_on_drop;
use crate::problems;
use crate::service::IngestService;

#[utoipa::path(
    delete,
    path = "/v1/budgets/{budget}",
    tag = "budgets",
    operation_id = "deleteBudget",
    summary = "Delete a budget without submissions",
    params(
        ("budget" = String, Path, description = "The budget's id", example = "taxes"),
        ("If-Match" = Option<String>, Header, description = "Only delete the definition with this `ETag`"),
    ),
    responses(
        (status = 204, description = "The budget was deleted"),
    ),
    security(("administrator" = ["admin"])),
)]
pub(super) async fn delete(
    State(service): State<Arc<IngestService>>,
    principal: Principal,
    Path(id): Path<String>,
    request: Option<Extension<RequestId>>,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    let id = BudgetId::parse(&id).map_err(|_| problems::budget_not_found())?;
    let conditions = WriteConditions::of(&headers);
    // A deletion is logged even if the client hangs up.
    let deleted = detach_on_drop(async move {
        let decide = |current: Option<&Budget>| {
            let etag = current.map(|current| etag_of(&to_json(current)));
            delete_definition(current)?;
            conditions.check(etag.as_ref()).map_err(|_| ChangeRefused::PreconditionFailed)
        };
        service.definitions.delete(&id, &decide).await?;
        tracing::info!(
            budget = %id,
            by = principal.name(),
            request = request.as_ref().map(|id| id.as_str()),
            "budget deleted"
        );
        Ok(())
    });
    let frozen = "the budget has submissions: only a budget without any can be deleted";
    deleted.await.map_err(|error| refused(error, frozen))?;
    Ok(StatusCode::NO_CONTENT)
}
