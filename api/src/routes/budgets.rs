//! `GET /v1/budgets` and `GET /v1/budgets/{budget}`: budget definitions.

use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::response::Response;
use runtime::problem::{Problem, ProblemKind};

use super::response::cacheable;
use super::{ApiState, definitions_not_loaded};

pub(super) async fn list(
    State(api): State<Arc<ApiState>>,
    request: Request,
) -> Result<Response, Problem> {
    if !api.definitions.is_loaded() {
        return Err(definitions_not_loaded());
    }
    let rendered = api.rendered.of(&api.definitions.catalog());
    let list = rendered.list().ok_or_else(|| Problem::new(ProblemKind::Internal))?;
    Ok(cacheable(request.headers(), list))
}

pub(super) async fn one(
    State(api): State<Arc<ApiState>>,
    Path(budget): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let catalog = api.definitions.catalog();
    if catalog.get(&budget).is_none() {
        return Err(api.no_such_budget(&[&budget]));
    }
    let rendered = api.rendered.of(&catalog);
    let definition = rendered.budget(&budget).ok_or_else(|| Problem::new(ProblemKind::Internal))?;
    Ok(cacheable(request.headers(), definition))
}
