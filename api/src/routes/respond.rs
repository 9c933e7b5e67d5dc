//! Writes answers: the body or `304`, and the headers that say how old it is and where it came from.
//!
//! `Cache-Control: public, max-age=0, must-revalidate`: any cache on the way may keep an answer, and must ask us before
//! each use. The ETag makes that a `304` without a body, and nobody sees an answer older than ours; receipts and
//! waits reach us as well.

use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::header::{AGE, CACHE_CONTROL, CACHE_STATUS, CONTENT_TYPE, ETAG};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use runtime::problem::Problem;

use super::conditional::has_already;
use crate::answer::{Rendered, digest};
use crate::chain::Tier;
use crate::consistency::AtLeast;
use crate::reader::Served;

const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
pub(super) const REVALIDATE: HeaderValue =
    HeaderValue::from_static("public, max-age=0, must-revalidate");

/// An answer, or `304` when the client has it already.
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

/// Says how old an answer is and which tiers were asked for it.
pub(super) fn note_source(headers: &mut HeaderMap, age: Duration, served: Served) {
    let age = match age.as_secs() {
        0 => HeaderValue::from_static("0"),
        seconds => HeaderValue::from(seconds),
    };
    headers.insert(AGE, age);
    headers.insert(CACHE_STATUS, HeaderValue::from_static(cache_status(served)));
}

/// RFC 9211, in the order in which the tiers were asked. A tier that was left alone for its failures is one that had
/// nothing.
fn cache_status(served: Served) -> &'static str {
    match served {
        Served::Memory => "allocator-memory; hit",
        Served::By(Tier::Redis) => "allocator-memory; fwd=miss, allocator-redis; hit",
        Served::By(Tier::Summary) => {
            "allocator-memory; fwd=miss, allocator-redis; fwd=miss, allocator-summary; hit"
        }
        Served::By(Tier::Recount) => {
            "allocator-memory; fwd=miss, allocator-redis; fwd=miss, allocator-summary; fwd=miss, \
             allocator-recount; hit"
        }
        Served::Stale => {
            "allocator-memory; fwd=miss, allocator-redis; fwd=miss, allocator-summary; fwd=miss, \
             allocator-recount; fwd=miss, allocator-memory; hit; detail=stale"
        }
    }
}

/// Says that the request's `wait` was heeded.
pub(super) fn note_preference(headers: &mut HeaderMap, at_least: Option<AtLeast>) {
    if let Some(applied) = preference_applied(at_least) {
        headers.insert(PREFERENCE_APPLIED, applied);
    }
}

/// The same on a problem.
pub(super) fn problem_with_preference(problem: Problem, at_least: Option<AtLeast>) -> Problem {
    match preference_applied(at_least) {
        Some(applied) => problem.header(PREFERENCE_APPLIED, applied),
        None => problem,
    }
}

fn preference_applied(at_least: Option<AtLeast>) -> Option<HeaderValue> {
    let wait = at_least?.wait?;
    HeaderValue::try_from(format!("wait={}", wait.as_secs())).ok()
}

/// A JSON body with an ETag made of it.
pub(super) fn tagged(body: Vec<u8>) -> Rendered {
    let etag = quoted(&digest(&body));
    Rendered { body: Bytes::from(body), etag }
}

/// A tag as a header. `tag` is hexadecimal.
pub(super) fn quoted(tag: &str) -> HeaderValue {
    HeaderValue::try_from(format!("\"{tag}\"")).unwrap_or(HeaderValue::from_static("\"\""))
}
