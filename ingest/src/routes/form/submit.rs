//! `POST /budgets/{budget}/submit`

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use bytes::Bytes;
use http::HeaderMap;
use identity::OpenedSession;
use runtime::limits::{LimitTicket, SignInTicket};
use runtime::principal::PresentedCredentials;
use runtime::problem::Problem;
use schemas::{Budget, BudgetId, IdentityRule};

use super::form_post::FormPost;
use super::form_response::{Targets, respond};
use crate::idempotency_key::IdempotencyKey;
use crate::parse;
use crate::problems;
use crate::response::PersonPath;
use crate::routes::session::set_cookies;
use crate::routes::submit::{append, pending};
use crate::service::IngestService;
use crate::signals::RequestOrigin;

const TARGETS: Targets = Targets { receipt_member: "receipt", retry_page: "confirm" };

pub(super) async fn submit(
    State(service): State<Arc<IngestService>>,
    Path(budget): Path<String>,
    presented: PresentedCredentials,
    key: IdempotencyKey,
    (origin, tickets): (RequestOrigin, (LimitTicket, SignInTicket)),
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let id = BudgetId::parse(&budget).map_err(|_| problems::budget_not_found())?;
    let post = FormPost::read(&headers, presented, &body)?;
    let client = (&origin.of_person(), &tickets.0, &tickets.1);
    // The session lasts even if nothing is accepted now: the code need not be entered again.
    let mut session = None;
    let accepted = accept(&service, client, &id, &key, &post, &headers, &mut session).await;
    let mut response = respond(&service, &id, &post, accepted, &TARGETS);
    if let Some(opened) = &session {
        set_cookies(&mut response, &opened.cookies)?;
    }
    Ok(response)
}

async fn accept(
    service: &IngestService,
    (origin, ticket, sign_in): (&RequestOrigin, &LimitTicket, &SignInTicket),
    id: &BudgetId,
    key: &IdempotencyKey,
    post: &FormPost,
    headers: &HeaderMap,
    session: &mut Option<OpenedSession>,
) -> Result<Response, Problem> {
    let opened = async {
        let budget = service.open_budget(id.as_str())?;
        if post.form.code.is_some() && budget.identity == IdentityRule::Code {
            sign_in.charge().await?;
        }
        *session = post.open_session(service, &budget, headers)?;
        Ok(budget)
    };
    let budget = opened.await;
    let holder = session.as_ref().map(|opened| &opened.person);
    let prepare = |budget: &Budget| {
        // A budget whose rule has just changed has no personal codes.
        let holder = holder.filter(|_| budget.identity == IdentityRule::Code);
        let person = match holder {
            Some(holder) => holder.clone(),
            None => post.require_person(service, budget)?,
        };
        let mut parsed = parse::form(&post.form, budget, &person)?;
        parsed.id = key.submission_id(parsed.id, budget, Some(&person), &service.person_secret)?;
        let (pending, _) = pending(service, origin, budget, parsed)?;
        Ok((pending, PersonPath::me()))
    };
    append(service, ticket, budget, prepare).await
}
