//! `POST /budgets/{budget}/person`: makes this browser a person of the budget.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::header::CACHE_CONTROL;
use http::{HeaderMap, StatusCode};
use jiff::Timestamp;
use runtime::principal::{PresentedCredentials, require_same_origin};
use runtime::problem::{Problem, ProblemKind};

use crate::routes::session::set_cookies;
use crate::service::IngestService;

/// Sets the person's cookies, unless the browser has them, or the budget knows persons otherwise.
pub(super) async fn make_person(
    State(service): State<Arc<IngestService>>,
    Path(budget): Path<String>,
    presented: PresentedCredentials,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    require_same_origin(&headers)?;
    let budget = service.budget(&budget)?;
    let mut response = (StatusCode::NO_CONTENT, [(CACHE_CONTROL, "no-store")]).into_response();
    let cookies =
        service.authorizer.cookies_of_person(&budget, &presented, &headers, Timestamp::now());
    let cookies = cookies.map_err(|_| Problem::new(ProblemKind::Internal))?;
    set_cookies(&mut response, &cookies)?;
    Ok(response)
}
