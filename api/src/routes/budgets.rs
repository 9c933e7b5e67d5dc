//! `GET /v1/budgets` and `GET /v1/budgets/{budget}`: definitions.

use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::response::Response;
use runtime::problem::{Problem, ProblemKind};
use schemas::Budget;
use serde::Serialize;

use super::respond::{cacheable, tagged};
use super::{Api, definitions_unknown};

#[derive(Serialize)]
struct List<'a> {
    budgets: Vec<&'a Budget>,
}

pub(super) async fn list(
    State(api): State<Arc<Api>>,
    request: Request,
) -> Result<Response, Problem> {
    if !api.definitions.is_loaded() {
        return Err(definitions_unknown());
    }
    let catalog = api.definitions.catalog();
    respond(&List { budgets: catalog.iter().map(AsRef::as_ref).collect() }, &request)
}

pub(super) async fn one(
    State(api): State<Arc<Api>>,
    Path(budget): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let catalog = api.definitions.catalog();
    let definition = catalog.get(&budget).ok_or_else(|| api.no_such_budget(&[&budget]))?;
    respond(definition.as_ref(), &request)
}

fn respond(content: &impl Serialize, request: &Request) -> Result<Response, Problem> {
    let body = serde_json::to_vec(content).map_err(|_| Problem::new(ProblemKind::Internal))?;
    Ok(cacheable(request.headers(), &tagged(body)))
}
