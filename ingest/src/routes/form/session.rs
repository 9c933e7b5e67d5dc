//! `POST /budgets/{budget}/session` opens a session with a personal code, for the person's own page, or with a one-time
//! code (`email_session`);
//! `POST /budgets/{budget}/session/end` ends that of the browser.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::HeaderMap;
use runtime::principal::PresentedCredentials;
use runtime::problem::Problem;
use schemas::{BudgetId, IdentityRule};

use super::email_session;
use super::form_post::FormPost;
use super::redirect::{back, to_own_page};
use crate::problems;
use crate::routes::session::set_cookies;
use crate::service::IngestService;

pub(super) async fn open(
    State(service): State<Arc<IngestService>>,
    Path(budget): Path<String>,
    presented: PresentedCredentials,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let id = BudgetId::parse(&budget).map_err(|_| problems::budget_not_found())?;
    let post = FormPost::read(&headers, presented, &body)?;
    let budget = service.budget(id.as_str())?;
    if budget.identity == IdentityRule::Email {
        return email_session::open(&service, &budget, &post, &headers).await;
    }
    let code = post.form.code.as_ref().map_or("", |code| code.reveal());
    let opened = service.authorizer.open_session(&budget, Some(code), &post.presented, &headers);
    match opened {
        Ok(opened) => {
            let mut response = to_own_page(&id, &post.form);
            set_cookies(&mut response, &opened.cookies)?;
            Ok(response)
        }
        Err(problem) if post.wants_json => Ok(problem.into_response()),
        Err(problem) => Ok(back(&id, Some(&budget), &post.form, "mine", &problem)),
    }
}

/// Ends the session of the browser, and goes back to the person's own page, which asks for a code.
pub(super) async fn end(
    State(service): State<Arc<IngestService>>,
    Path(budget): Path<String>,
    presented: PresentedCredentials,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let id = BudgetId::parse(&budget).map_err(|_| problems::budget_not_found())?;
    let post = FormPost::read(&headers, presented, &body)?;
    let budget = service.budget(id.as_str())?;
    let cookies = service.authorizer.end_session(&budget, &post.presented, &headers)?;
    let mut response = to_own_page(&id, &post.form);
    set_cookies(&mut response, &cookies)?;
    Ok(response)
}
