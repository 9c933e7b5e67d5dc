//! Writes responses: the body or `304`, and the headers with the answer's age and source.
//!
//! A public answer is the same for everyone: shared caches (the gateway, a content delivery network) keep it for a
//! second, and serve it a little longer while they fetch the next one or cannot. Browsers revalidate it before each
//! use; the ETag makes that a `304` without a body. A read that asks for a submission is no public answer: no cache may
//! answer it.

use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use http::header::{AGE, CACHE_CONTROL, CACHE_STATUS, CONTENT_ENCODING, CONTENT_TYPE, ETAG, VARY};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use runtime::http::{etag_of, has_already};
use runtime::problem::Problem;

use crate::aggregate_reader::AnswerSource;
use crate::answer::{Rendered, Representation};
use crate::consistency::AtLeast;
use crate::read_policy::Tier;

const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// Of public answers: a second in shared caches, five more while the next one is fetched, a minute while it cannot be.
pub(super) const PUBLIC: HeaderValue = HeaderValue::from_static(
    "public, max-age=0, s-maxage=1, stale-while-revalidate=5, stale-if-error=60",
);
const NO_STORE: HeaderValue = HeaderValue::from_static("private, no-store");
/// The keys by which a content delivery network purges answers.
const SURROGATE_KEY: HeaderName = HeaderName::from_static("surrogate-key");
/// Of public answers that nobody may see older than they are.
pub(super) const REVALIDATE: HeaderValue =
    HeaderValue::from_static("public, max-age=0, must-revalidate");

/// Builds a response with the answer in the form that the client likes best, or `304` when the client has it already.
pub(super) fn cacheable(request: &HeaderMap, rendered: &Rendered) -> Response {
    let form = rendered.accepted_by(request);
    if has_already(request, &form.etag) { not_modified(form.etag) } else { complete(form) }
}

/// As [`cacheable`], for an answer that was rendered for this request alone.
pub(super) async fn cacheable_once(request: &HeaderMap, rendered: &Rendered) -> Response {
    let coding = rendered.accepted_coding(request);
    let etag = coding.etag(&rendered.etag);
    if has_already(request, &etag) {
        return not_modified(etag);
    }
    complete(rendered.compressed_once(coding).await)
}

fn complete(form: Representation) -> Response {
    let mut response = Response::new(Body::from(form.body));
    // Also for the headers of the request layer.
    response.headers_mut().reserve(12);
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    if let Some(coding) = form.coding.header_value() {
        response.headers_mut().insert(CONTENT_ENCODING, coding);
    }
    note_version(response.headers_mut(), form.etag);
    response
}

fn not_modified(etag: HeaderValue) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    note_version(response.headers_mut(), etag);
    response
}

fn note_version(headers: &mut HeaderMap, etag: HeaderValue) {
    headers.insert(ETAG, etag);
    headers.insert(CACHE_CONTROL, PUBLIC);
    headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
}

/// Marks an answer that counts a certain submission, or waited for it: the next reader asks for another one.
pub(super) fn keep_from_caches(headers: &mut HeaderMap, at_least: Option<AtLeast>) {
    if at_least.is_some() {
        headers.insert(CACHE_CONTROL, NO_STORE);
    }
}

/// Adds the key by which a content delivery network purges the answer.
pub(super) fn note_surrogate_key(headers: &mut HeaderMap, key: HeaderValue) {
    headers.insert(SURROGATE_KEY, key);
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
    Rendered::new(body, etag)
}
