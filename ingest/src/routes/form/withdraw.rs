//! `POST /budgets/{budget}/withdraw`

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::HeaderMap;
use runtime::clock::now_ms;
use runtime::problem::{Faults, Problem, ProblemKind};
use schemas::{BudgetId, PersonId};

use super::form_post::FormPost;
use super::redirect::{back, to_mine};
use super::submit::without_person;
use crate::idempotency_key::IdempotencyKey;
use crate::parse;
use crate::pending::PendingSubmission;
use crate::problems;
use crate::routes::submit::append;
use crate::service::IngestService;

pub(super) async fn withdraw(
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
        Ok(response) => to_mine(&id, &post.form, "withdrawn", &response),
        Err(problem) if post.wants_json => problem.into_response(),
        Err(problem) => back(&id, None, &post.form, "mine", &problem),
    })
}

async fn accept(
    service: &IngestService,
    id: &BudgetId,
    key: &IdempotencyKey,
    post: &FormPost,
) -> Result<Response, Problem> {
    let (pending, person) = parse_post(service, id, key, post)
        .inspect_err(|problem: &Problem| service.metrics.count_rejected(problem.kind(), 1))?;
    append(service, pending, person).await
}

/// Parses a withdrawal, which freezes nothing, as under `/v1`.
fn parse_post<'p>(
    service: &IngestService,
    id: &BudgetId,
    key: &IdempotencyKey,
    post: &'p FormPost,
) -> Result<(PendingSubmission, &'p PersonId), Problem> {
    let budget = service.open_budget(id.as_str())?;
    let person = post.require_person()?;
    let mut faults = Faults::default();
    let in_form = parse::submission_id(&post.form, &mut faults);
    if !faults.is_empty() {
        return Err(faults.into_problem(ProblemKind::Malformed));
    }
    let submission_id = key.submission_id(in_form, &budget.id, &service.hasher)?;
    Ok((service.pending_withdrawal(&budget, person, submission_id, now_ms()), person))
}
