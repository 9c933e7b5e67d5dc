//! `POST /budgets/{budget}/withdraw`

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use bytes::Bytes;
use http::HeaderMap;
use runtime::clock::now_ms;
use runtime::limits::LimitTicket;
use runtime::principal::PresentedCredentials;
use runtime::problem::{Faults, Problem, ProblemKind};
use schemas::{Budget, BudgetId};

use super::form_post::FormPost;
use super::form_response::{Targets, respond};
use crate::idempotency_key::IdempotencyKey;
use crate::parse;
use crate::pending::PendingSubmission;
use crate::problems;
use crate::response::PersonPath;
use crate::routes::submit::append;
use crate::service::IngestService;
use crate::signals::RequestOrigin;

const TARGETS: Targets = Targets { receipt_member: "withdrawn", retry_page: "mine" };

pub(super) async fn withdraw(
    State(service): State<Arc<IngestService>>,
    Path(budget): Path<String>,
    presented: PresentedCredentials,
    key: IdempotencyKey,
    (origin, ticket): (RequestOrigin, LimitTicket),
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let id = BudgetId::parse(&budget).map_err(|_| problems::budget_not_found())?;
    let post = FormPost::read(&headers, presented, &body)?;
    let client = (&origin.of_person(), &ticket);
    let accepted = accept(&service, client, &id, &key, &post).await;
    Ok(respond(&service, &id, &post, accepted, &TARGETS))
}

async fn accept(
    service: &IngestService,
    (origin, ticket): (&RequestOrigin, &LimitTicket),
    id: &BudgetId,
    key: &IdempotencyKey,
    post: &FormPost,
) -> Result<Response, Problem> {
    let budget = service.open_budget(id.as_str());
    let prepare = |budget: &Budget| {
        Ok((pending_withdrawal(service, origin, budget, key, post)?, PersonPath::me()))
    };
    append(service, ticket, budget, prepare).await
}

/// Parses a withdrawal, which freezes nothing, as under `/v1`.
fn pending_withdrawal(
    service: &IngestService,
    origin: &RequestOrigin,
    budget: &Budget,
    key: &IdempotencyKey,
    post: &FormPost,
) -> Result<PendingSubmission, Problem> {
    let person = post.require_person(service, budget)?;
    let mut faults = Faults::default();
    let in_form = parse::submission_id(&post.form, &mut faults);
    if !faults.is_empty() {
        return Err(faults.into_problem(ProblemKind::Malformed));
    }
    let submission_id =
        key.submission_id(in_form, budget, Some(&person), &service.person_secret)?;
    let now_ms = now_ms();
    let origin = service.origin(budget, origin, now_ms);
    service.pending_withdrawal(budget, &person, submission_id, origin, now_ms)
}
