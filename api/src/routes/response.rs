//! Writes responses: the body or `304`, and the headers with the answer's age and source.
//!
//! `Cache-Control: public, max-age=0, must-revalidate`: HTTP caches may store an answer but must revalidate it before
//! each use. The ETag makes a revalidation a `304` without a body. So no client sees an older answer than ours, and
//! receipts and waits reach this process.

use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::header::{AGE, CACHE_CONTROL, CACHE_STATUS, CONTENT_TYPE, ETAG};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use runtime::http::{etag_of, has_already};
use runtime::problem::Problem;

use crate::aggregate_reader::AnswerSource;
use crate::answer::Rendered;
use crate::consistency::AtLeast;
use crate::read_policy::Tier;

const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
pub(super) const REVALIDATE: HeaderValue =
    HeaderValue::from_static("public, max-age=0, must-revalidate");

/// Builds a response with the answer, or `304` when the client has it already.
pub(super) fn cacheable(request: &HeaderMap, rendered: &Rendered) -> Response {
    let mut response = if has_already(request, &rendered.etag) {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        let mut response = Response::new(Body::from(rendered.body.clone()));
        response.headers_mut().reserve(8);
        response.headers_mut().insert(CONTENT_TYPE, JSON);
        response
    };
    let headers = response.headers_mut();
    headers.insert(ETAG, rendered.etag.clone());
    headers.insert(CACHE_CONTROL, REVALIDATE);
    response
}

/// Adds the headers `Age` and `Cache-Status`.
pub(super) fn note_source(headers: &mut HeaderMap, age: Duration, source: AnswerSource) {
    let age = match age.as_secs() {
        0 => HeaderValue::from_static("0"),
        seconds => HeaderValue::from(seconds),
    };
    headers.insert(AGE, age);
    headers.insert(CACHE_STATUS, HeaderValue::from_static(cache_status(source)));
}

/// Returns `Cache-Status` (RFC 9211) with the tiers in query order. A tier whose breaker is open counts as a miss.
fn cache_status(source: AnswerSource) -> &'static str {
    match source {
        AnswerSource::Memory => "allocator-memory; hit",
        AnswerSource::Tier(Tier::Redis) => "allocator-memory; fwd=miss, allocator-redis; hit",
        AnswerSource::Tier(Tier::Summary) => {
            "allocator-memory; fwd=miss, allocator-redis; fwd=miss, allocator-summary; hit"
        }
        AnswerSource::Tier(Tier::Recount) => {
            "allocator-memory; fwd=miss, allocator-redis; fwd=miss, allocator-summary; fwd=miss, \
             allocator-recount; hit"
        }
        AnswerSource::Stale => {
            "allocator-memory; fwd=miss, allocator-redis; fwd=miss, allocator-summary; fwd=miss, \
             allocator-recount; fwd=miss, allocator-memory; hit; detail=stale"
        }
    }
}

/// Adds `Preference-Applied` if the request's `wait` was applied.
pub(super) fn note_preference(headers: &mut HeaderMap, at_least: Option<AtLeast>) {
    if let Some(applied) = preference_applied(at_least) {
        headers.insert(PREFERENCE_APPLIED, applied);
    }
}

/// Adds `Preference-Applied` to a problem if the request's `wait` was applied.
pub(super) fn note_preference_in(problem: Problem, at_least: Option<AtLeast>) -> Problem {
    match preference_applied(at_least) {
        Some(applied) => problem.header(PREFERENCE_APPLIED, applied),
        None => problem,
    }
}

fn preference_applied(at_least: Option<AtLeast>) -> Option<HeaderValue> {
    let wait = at_least?.wait?;
    HeaderValue::try_from(format!("wait={}", wait.as_secs())).ok()
}

/// Adds an ETag derived from a JSON body.
pub(super) fn tagged(body: Vec<u8>) -> Rendered {
    let etag = etag_of(&body);
    Rendered { body: Bytes::from(body), etag }
}
