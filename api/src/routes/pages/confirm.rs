//! `GET /budgets/{budget}/confirm`: where sending leads without a script.

use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::response::Response;
use http::header::SET_COOKIE;
use http::{HeaderName, HeaderValue, StatusCode, header};
use page::form::{self, FormValues};
use page::html::{ConfirmPage, confirm_page};
use page::person;
use page::view::BudgetView;
use runtime::random::random_128_bits;
use schemas::{Budget, Openness, SubmissionId};
use uuid::Uuid;

use super::html_response::{private_page, see_other};
use super::lookup;
use super::page_request::PageRequest;
use crate::routes::ApiState;

const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

pub(super) async fn page(
    State(api): State<Arc<ApiState>>,
    Path(budget): Path<String>,
    request: Request,
) -> Response {
    let request = PageRequest::of(&request.into_parts().0);
    match lookup::budget(&api, &budget, &request) {
        Ok(budget) => confirm(&budget, &request),
        Err(response) => *response,
    }
}

/// Shows an allocation to be sent, and makes the browser a person of the budget. Faulty values go back to the form.
fn confirm(budget: &Budget, request: &PageRequest) -> Response {
    let lang = ("lang", request.language().tag());
    let values = FormValues::of(budget, &request.form);
    if budget.openness(request.now) != Openness::Open || request.form.fields.is_empty() {
        return see_other(&format!("/budgets/{}?{}", budget.id, form::query(&[], &[lang])));
    }
    if !values.faults().is_empty() {
        let query = form::query(&form::fields(budget, &values), &[lang, ("do", "check")]);
        return see_other(&format!("/budgets/{}?{query}", budget.id));
    }
    let values = values.tidied(request.texts.numbers());
    let html = confirm_page(&ConfirmPage {
        texts: request.texts,
        budget: &BudgetView::new(budget, request.language(), request.now),
        fields: &form::fields(budget, &values),
        values: &values,
        submission_id: request.form.submission_id().unwrap_or(SubmissionId(Uuid::new_v4())),
        fault: request.form.fault.as_deref(),
    });
    if request.person().is_some() {
        return private_page(StatusCode::OK, html);
    }
    match person_cookie(budget, request) {
        Some(cookie) => {
            let mut response = private_page(StatusCode::OK, html);
            response.headers_mut().insert(SET_COOKIE, cookie);
            response
        }
        None => lookup::not_now(request),
    }
}

/// Builds the cookie of a new person; `None` without random bits.
fn person_cookie(budget: &Budget, request: &PageRequest) -> Option<HeaderValue> {
    let secure =
        person::is_https(request.header(X_FORWARDED_PROTO), request.header(header::ORIGIN));
    let cookie = person::set_cookie(budget, random_128_bits().ok()?, request.now, secure);
    HeaderValue::from_str(&cookie).ok()
}
