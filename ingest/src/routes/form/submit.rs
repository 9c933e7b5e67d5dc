//! `POST /budgets/{budget}/submit`

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::LOCATION;
use http::{HeaderMap, HeaderValue};
use runtime::clock::now_ms;
use runtime::problem::Problem;
use schemas::{Budget, BudgetId};

use super::form_post::FormPost;
use super::redirect::{back, to_mine};
use crate::idempotency_key::IdempotencyKey;
use crate::parse;
use crate::problems;
use crate::routes::submit::append;
use crate::service::IngestService;

pub(super) async fn submit(
    State(service): State<Arc<IngestService>>,
    Path(budget): Path<String>,
    key: IdempotencyKey,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let id = BudgetId::parse(&budget).map_err(|_| problems::budget_not_found())?;
    let post = FormPost::read(&headers, &body)?;
    let accepted = accept(&service, &id, &key, &post).await;
    Ok(match accepted {
        Ok(response) if post.wants_json => without_person(response, &id),
        Ok(response) => to_mine(&id, &post.form, "receipt", &response),
        Err(problem) if post.wants_json => problem.into_response(),
        Err(problem) => {
            let catalog = service.definitions.catalog();
            back(&id, catalog.get(id.as_str()).map(AsRef::as_ref), &post.form, "confirm", &problem)
        }
    })
}

async fn accept(
    service: &IngestService,
    id: &BudgetId,
    key: &IdempotencyKey,
    post: &FormPost,
) -> Result<Response, Problem> {
    let parsed = async {
        let budget = service.open_budget(id.as_str())?;
        let person = post.require_person()?;
        let parse = |budget: &Budget| {
            let mut parsed = parse::form(&post.form, budget, person)?;
            parsed.id = key.submission_id(parsed.id, &budget.id, &service.hasher)?;
            Ok(parsed)
        };
        let (budget, parsed) = service.parse_against_frozen(budget, parse, |_| true).await?;
        Ok(service.pending_submission(&budget, parsed, now_ms()))
    };
    let (pending, person) = parsed
        .await
        .inspect_err(|problem: &Problem| service.metrics.count_rejected(problem.kind(), 1))?;
    append(service, pending, &person).await
}

/// Replaces the address of the allocation, which would reveal the person's id to scripts.
pub(super) fn without_person(mut response: Response, budget: &BudgetId) -> Response {
    if let Ok(mine) = HeaderValue::from_str(&format!("/budgets/{budget}/mine")) {
        response.headers_mut().insert(LOCATION, mine);
    }
    response
}
