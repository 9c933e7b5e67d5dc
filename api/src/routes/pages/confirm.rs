//! `GET /budgets/{budget}/confirm`: the page on which a browser without a script sends an allocation.

use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::response::Response;
use http::StatusCode;
use http::header::SET_COOKIE;
use identity::email::EmailAddress;
use page::form::{self, FormValues};
use page::html::{CodeField, ConfirmPage, SignIn, confirm_page};
use page::view::BudgetView;
use schemas::{Budget, IdentityRule, SubmissionId};
use uuid::Uuid;

use super::html_response::{private_page, see_other};
use super::lookup;
use super::page_request::PageRequest;
use crate::routes::ApiState;

pub(super) async fn page(
    State(api): State<Arc<ApiState>>,
    Path(budget): Path<String>,
    request: Request,
) -> Response {
    let request = PageRequest::of(&request.into_parts().0);
    match lookup::budget(&api, &budget, &request) {
        Ok(budget) => confirm(&api, &budget, &request),
        Err(response) => *response,
    }
}

/// Shows an allocation to be sent, and makes the browser a person of the budget, or asks it to sign in. Faulty
/// values go back to the form.
fn confirm(api: &ApiState, budget: &Budget, request: &PageRequest) -> Response {
    let view = BudgetView::new(budget, request.language(), request.now);
    let is_known = request.person(&api.authorizer, budget).is_some();
    let address = request.email();
    let sign_in = match (budget.identity, is_known) {
        (IdentityRule::Code, true) => Some(SignIn::Code(CodeField::Optional)),
        (IdentityRule::Code, false) => Some(SignIn::Code(CodeField::Required)),
        (IdentityRule::Email, true) => Some(SignIn::EmailSession),
        (IdentityRule::Email, false) => {
            Some(SignIn::Email { address: address.as_ref().map(EmailAddress::reveal) })
        }
        _ => None,
    };
    let lang = ("lang", request.language().tag());
    let values = FormValues::of(budget, &request.form);
    if !view.takes_answers() || request.form.fields.is_empty() {
        return see_other(&format!("/budgets/{}?{}", budget.id, form::query(&[], &[lang])));
    }
    if !values.faults().is_empty() {
        let query = form::query(&form::fields(budget, &values), &[lang, ("do", "check")]);
        return see_other(&format!("/budgets/{}?{query}", budget.id));
    }
    let values = values.tidied(request.texts.numbers());
    let html = confirm_page(&ConfirmPage {
        texts: request.texts,
        budget: &view,
        fields: &form::fields(budget, &values),
        values: &values,
        submission_id: request.form.submission_id().unwrap_or(SubmissionId(Uuid::new_v4())),
        fault: request.form.fault.as_deref(),
        sign_in,
    });
    match request.cookies_of_person(&api.authorizer, budget) {
        Some(cookies) => {
            let mut response = private_page(StatusCode::OK, html);
            for cookie in cookies {
                response.headers_mut().append(SET_COOKIE, cookie);
            }
            response
        }
        None => lookup::not_now(request),
    }
}
