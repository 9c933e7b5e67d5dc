//! `GET /v1/budgets` and `GET /v1/budgets/{budget}`: budget definitions.

use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::response::Response;
use http::HeaderValue;
use runtime::problem::{Problem, ProblemKind};

use super::response::{cacheable, note_surrogate_key};
use super::{ApiState, definitions_not_loaded};
use crate::answer::surrogate_key;

#[utoipa::path(
    get,
    path = "/v1/budgets",
    tag = "budgets",
    operation_id = "listBudgets",
    summary = "List the budgets",
    responses(
        (status = 200, description = "All budgets", body = ref("#/components/schemas/BudgetList"),
            content_type = "application/json"),
        (status = 304, description = "The client has this version already (`If-None-Match`)"),
    ),
)]
pub(super) async fn list(
    State(api): State<Arc<ApiState>>,
    request: Request,
) -> Result<Response, Problem> {
    if !api.definitions.is_loaded() {
        return Err(definitions_not_loaded());
    }
    let rendered = api.rendered.of(&api.definitions.catalog());
    let list = rendered.list().ok_or_else(|| Problem::new(ProblemKind::Internal))?;
    let mut response = cacheable(request.headers(), list);
    note_surrogate_key(response.headers_mut(), HeaderValue::from_static("budgets"));
    Ok(response)
}

#[utoipa::path(
    get,
    path = "/v1/budgets/{budget}",
    tag = "budgets",
    operation_id = "getBudget",
    summary = "Read the definition of a budget",
    params(
        ("budget" = String, Path, description = "The budget's id", example = "taxes"),
    ),
    responses(
        (status = 200, description = "The definition", body = ref("#/components/schemas/Budget"),
            content_type = "application/json"),
        (status = 304, description = "The client has this version already (`If-None-Match`)"),
    ),
)]
pub(super) async fn one(
    State(api): State<Arc<ApiState>>,
    Path(budget): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let catalog = api.definitions.catalog();
    let Some(known) = catalog.get(&budget) else { return Err(api.no_such_budget(&[&budget])) };
    let rendered = api.rendered.of(&catalog);
    let definition = rendered.budget(&budget).ok_or_else(|| Problem::new(ProblemKind::Internal))?;
    let mut response = cacheable(request.headers(), definition);
    note_surrogate_key(response.headers_mut(), surrogate_key(&known.id));
    Ok(response)
}
