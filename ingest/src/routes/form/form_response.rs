//! The response to a form: JSON for a script, a redirection to a page otherwise.

use axum::response::{IntoResponse, Response};
use http::HeaderValue;
use http::header::LOCATION;
use runtime::problem::Problem;
use schemas::BudgetId;

use super::form_post::FormPost;
use super::redirect::{back, to_mine};
use crate::service::IngestService;

/// Where a browser without a script goes after its form was posted.
pub(super) struct Targets {
    /// The query member of the person's own page that carries the receipt.
    pub receipt_member: &'static str,
    /// The page that shows a refused form again.
    pub retry_page: &'static str,
}

/// Builds the response to an accepted or refused form.
pub(super) fn respond(
    service: &IngestService,
    id: &BudgetId,
    post: &FormPost,
    accepted: Result<Response, Problem>,
    targets: &Targets,
) -> Response {
    match accepted {
        Ok(response) if post.wants_json => without_person(response, id),
        Ok(response) => to_mine(id, &post.form, targets.receipt_member, &response),
        Err(problem) if post.wants_json => problem.into_response(),
        Err(problem) => {
            let catalog = service.definitions.catalog();
            let budget = catalog.get(id.as_str()).map(AsRef::as_ref);
            back(id, budget, &post.form, targets.retry_page, &problem)
        }
    }
}

/// Replaces the address of the allocation, which would reveal the person's id to scripts.
fn without_person(mut response: Response, budget: &BudgetId) -> Response {
    if let Ok(mine) = HeaderValue::from_str(&format!("/budgets/{budget}/mine")) {
        response.headers_mut().insert(LOCATION, mine);
    }
    response
}
