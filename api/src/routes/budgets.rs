//! `GET /v1/budgets` and `GET /v1/budgets/{budget}`: budget definitions.

use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::response::Response;
use runtime::problem::{Problem, ProblemKind};
use schemas::{Budget, BudgetId};
use serde::Serialize;

use super::response::{cacheable, tagged};
use super::{ApiState, definitions_not_loaded};

#[derive(Serialize)]
struct BudgetList<'a> {
    budgets: Vec<&'a Budget>,
    /// Ids of budgets whose definition only a newer release can read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unreadable: Vec<&'a BudgetId>,
}

pub(super) async fn list(
    State(api): State<Arc<ApiState>>,
    request: Request,
) -> Result<Response, Problem> {
    if !api.definitions.is_loaded() {
        return Err(definitions_not_loaded());
    }
    let catalog = api.definitions.catalog();
    let list = BudgetList {
        budgets: catalog.iter().map(AsRef::as_ref).collect(),
        unreadable: catalog.unreadable().collect(),
    };
    to_response(&list, &request)
}

pub(super) async fn one(
    State(api): State<Arc<ApiState>>,
    Path(budget): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let catalog = api.definitions.catalog();
    let definition = catalog.get(&budget).ok_or_else(|| api.no_such_budget(&[&budget]))?;
    to_response(definition.as_ref(), &request)
}

fn to_response(content: &impl Serialize, request: &Request) -> Result<Response, Problem> {
    let body = serde_json::to_vec(content).map_err(|_| Problem::new(ProblemKind::Internal))?;
    Ok(cacheable(request.headers(), &tagged(body)))
}
