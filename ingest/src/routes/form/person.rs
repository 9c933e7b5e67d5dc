//! `POST /budgets/{budget}/person`: makes this browser a person of the budget.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, ORIGIN, SET_COOKIE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use jiff::Timestamp;
use page::person;
use runtime::problem::{Problem, ProblemKind};
use runtime::random::random_128_bits;

use super::form_post::person_of;
use super::same_origin::require_same_origin;
use crate::service::IngestService;

const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Sets the person's cookie, unless the browser has one.
pub(super) async fn make_person(
    State(service): State<Arc<IngestService>>,
    Path(budget): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    require_same_origin(&headers)?;
    let budget = service.budget(&budget)?;
    let mut response = (StatusCode::NO_CONTENT, [(CACHE_CONTROL, "no-store")]).into_response();
    if person_of(&headers).is_none() {
        let random = random_128_bits().map_err(|_| Problem::new(ProblemKind::Internal))?;
        let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let secure = person::is_https(text(X_FORWARDED_PROTO), text(ORIGIN));
        let cookie = person::set_cookie(&budget, random, Timestamp::now(), secure);
        let cookie =
            HeaderValue::from_str(&cookie).map_err(|_| Problem::new(ProblemKind::Internal))?;
        response.headers_mut().insert(SET_COOKIE, cookie);
    }
    Ok(response)
}
