//! `POST /budgets/{budget}/person`: makes this browser a person of the budget.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, SET_COOKIE};
use http::{HeaderMap, HeaderValue, StatusCode};
use identity::cookie;
use jiff::Timestamp;
use runtime::principal::{PresentedCredentials, require_same_origin};
use runtime::problem::{Problem, ProblemKind};
use runtime::random::random_128_bits;
use schemas::IdentityRule;

use crate::service::IngestService;

/// Sets the person's cookie, unless the browser has one, or the budget knows persons otherwise.
pub(super) async fn make_person(
    State(service): State<Arc<IngestService>>,
    Path(budget): Path<String>,
    presented: PresentedCredentials,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    require_same_origin(&headers)?;
    let budget = service.budget(&budget)?;
    let mut response = (StatusCode::NO_CONTENT, [(CACHE_CONTROL, "no-store")]).into_response();
    let has_cookie_persons =
        !matches!(budget.identity, IdentityRule::Code | IdentityRule::Email | IdentityRule::Token);
    if has_cookie_persons && cookie::person(presented.cookies()).is_none() {
        let random = random_128_bits().map_err(|_| Problem::new(ProblemKind::Internal))?;
        let (id, secure) = (cookie::new_person(random), cookie::is_https(&headers));
        for cookie in cookie::set_person(&budget, &id, Timestamp::now(), secure) {
            let cookie =
                HeaderValue::from_str(&cookie).map_err(|_| Problem::new(ProblemKind::Internal))?;
            response.headers_mut().append(SET_COOKIE, cookie);
        }
    }
    Ok(response)
}
