//! `POST /budgets/{budget}/submit`

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use bytes::Bytes;
use http::HeaderMap;
use runtime::clock::now_ms;
use runtime::limits::LimitTicket;
use runtime::problem::Problem;
use schemas::{Budget, BudgetId};

use super::form_post::FormPost;
use super::form_response::{Targets, respond};
use crate::idempotency_key::IdempotencyKey;
use crate::parse;
use crate::problems;
use crate::routes::submit::append;
use crate::service::IngestService;

const TARGETS: Targets = Targets { receipt_member: "receipt", retry_page: "confirm" };

pub(super) async fn submit(
    State(service): State<Arc<IngestService>>,
    Path(budget): Path<String>,
    key: IdempotencyKey,
    ticket: LimitTicket,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let id = BudgetId::parse(&budget).map_err(|_| problems::budget_not_found())?;
    let post = FormPost::read(&headers, &body)?;
    let accepted = accept(&service, &ticket, &id, &key, &post).await;
    Ok(respond(&service, &id, &post, accepted, &TARGETS))
}

async fn accept(
    service: &IngestService,
    ticket: &LimitTicket,
    id: &BudgetId,
    key: &IdempotencyKey,
    post: &FormPost,
) -> Result<Response, Problem> {
    let parsed = async {
        let budget = service.open_budget(id.as_str())?;
        let person = post.require_person()?;
        let parse = |budget: &Budget| {
            let mut parsed = parse::form(&post.form, budget, person)?;
            parsed.id = key.submission_id(parsed.id, &budget.id, Some(person), &service.hasher)?;
            Ok(parsed)
        };
        let (budget, parsed) = service.parse_against_frozen(budget, parse, |_| true).await?;
        Ok(service.pending_submission(&budget, parsed, now_ms()))
    };
    let (pending, person) = parsed
        .await
        .inspect_err(|problem: &Problem| service.metrics.count_rejected(problem.kind(), 1))?;
    append(service, ticket, pending, &person).await
}
