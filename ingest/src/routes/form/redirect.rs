//! Where a browser without a script goes after its form was posted: pages of `api`.

use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, LOCATION};
use http::{HeaderName, HeaderValue, StatusCode};
use page::form::{self, FormRequest};
use page::language::Language;
use runtime::problem::{Problem, ProblemKind};
use schemas::{Budget, BudgetId};

const CONSISTENCY_TOKEN: HeaderName = HeaderName::from_static("consistency-token");

/// Goes to a page, which is then read with GET.
pub(super) fn see_other(path: &str) -> Response {
    // Ids are slugs and queries are percent-encoded: always a valid header.
    let location = HeaderValue::from_str(path).unwrap_or(HeaderValue::from_static("/"));
    let headers = [(LOCATION, location), (CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    (StatusCode::SEE_OTHER, headers).into_response()
}

/// Goes to the person's own page. `member` carries the receipt of the accepted record.
pub(super) fn to_mine(
    budget: &BudgetId,
    form: &FormRequest,
    member: &str,
    accepted: &Response,
) -> Response {
    let token = accepted.headers().get(CONSISTENCY_TOKEN);
    let receipt = token.and_then(|token| token.to_str().ok()).unwrap_or_default();
    let query = form::query(&[], &with_language(form, &[(member, receipt)]));
    see_other(&format!("/budgets/{budget}/mine?{query}"))
}

/// Goes to the person's own page, as it is now.
pub(super) fn to_own_page(budget: &BudgetId, form: &FormRequest) -> Response {
    match form::query(&[], &with_language(form, &[])) {
        query if query.is_empty() => see_other(&format!("/budgets/{budget}/mine")),
        query => see_other(&format!("/budgets/{budget}/mine?{query}")),
    }
}

/// Goes back to the page that asks for an address or a one-time code, with the values of an answer if it has them.
/// `fault` says what is wrong, if anything is. The page has neither address nor code in its own address.
pub(super) fn to_sign_in(budget: &Budget, form: &FormRequest, fault: Option<&str>) -> Response {
    let fields = own_fields(Some(budget), form);
    let submission_id = form.submission_id().map(|id| id.to_string());
    let mut others: Vec<(&str, &str)> = fault.map(|fault| ("fault", fault)).into_iter().collect();
    others.extend(submission_id.as_deref().map(|id| ("submission_id", id)));
    let page = if fields.is_empty() { "mine" } else { "confirm" };
    let query = form::query(&fields, &with_language(form, &others));
    see_other(&format!("/budgets/{}/{page}?{query}", budget.id))
}

/// Returns the fields of the budget's own categories, so that an address stays short.
fn own_fields(budget: Option<&Budget>, form: &FormRequest) -> Vec<(String, String)> {
    let is_field =
        |category: &str| budget.is_some_and(|budget| budget.category_index(category).is_some());
    form.fields.iter().filter(|(category, _)| is_field(category)).cloned().collect()
}

/// Goes to a page of the budget that says why the form was refused, and keeps what was typed.
///
/// Faults of the values are shown by the form, everything else by the page that posted it, `retry`, with the same
/// submission id, so that posting it again counts once.
pub(super) fn back(
    id: &BudgetId,
    budget: Option<&Budget>,
    form: &FormRequest,
    retry: &str,
    problem: &Problem,
) -> Response {
    let fields = own_fields(budget, form);
    match problem.kind() {
        ProblemKind::NotFound => see_other(&format!("/budgets/{id}")),
        ProblemKind::InvalidAllocation | ProblemKind::Malformed if !fields.is_empty() => {
            let query = form::query(&fields, &with_language(form, &[("do", "check")]));
            see_other(&format!("/budgets/{id}?{query}"))
        }
        kind => {
            let submission_id = form.submission_id().map(|id| id.to_string());
            let mut others = vec![("fault", kind.slug())];
            others.extend(submission_id.as_deref().map(|id| ("submission_id", id)));
            let query = form::query(&fields, &with_language(form, &others));
            see_other(&format!("/budgets/{id}/{retry}?{query}"))
        }
    }
}

fn with_language<'a>(
    form: &FormRequest,
    members: &[(&'a str, &'a str)],
) -> Vec<(&'a str, &'a str)> {
    let language = form.lang.as_deref().and_then(Language::of_tag);
    language
        .map(|language| ("lang", language.tag()))
        .into_iter()
        .chain(members.iter().copied())
        .collect()
}
