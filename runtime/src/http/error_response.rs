//! Converts every error response to a problem with the request's id. The response may be a handler's or the
//! framework's.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, StatusCode};

use super::request_id::RequestId;
use super::response_body;
use crate::problem::{Problem, ProblemKind};

/// The route label of requests that match no route.
pub(super) const UNMATCHED: &str = "unmatched";

/// Converts an error response to a problem with the request's id.
///
/// Responses with a body of their own (JSON, HTML) are returned unchanged.
pub(super) fn to_problem(mut response: Response, id: &RequestId, route: &str) -> Response {
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        response.headers_mut().remove(CONTENT_LENGTH);
        *response.body_mut() = Body::from(problem.instance(id.as_str()).to_json());
        return response;
    }
    if !has_no_body_or_text(response.headers()) {
        return response;
    }
    let (parts, body) = response.into_parts();
    let kind = kind_of(parts.status);
    let mut problem = Problem::new(kind).instance(id.as_str());
    // The text of a rejection describes the request's fault. Details of server errors are not exposed.
    let text = response_body::short_text(body).filter(|text| !text.is_empty());
    match text {
        Some(text) if parts.status.is_client_error() => problem = problem.detail(text),
        _ if kind == ProblemKind::MethodNotAllowed => {
            problem = problem.detail("the route supports only the methods in `Allow`");
        }
        _ if kind == ProblemKind::NotFound && route == UNMATCHED => {
            problem = problem.detail("no route matches this path");
        }
        _ => {}
    }
    let mut response = problem.into_response();
    response.extensions_mut().remove::<Problem>();
    // Other headers, for example `WWW-Authenticate`, are kept.
    for (name, value) in &parts.headers {
        if !response.headers().contains_key(name) && name != CONTENT_LENGTH {
            response.headers_mut().append(name, value.clone());
        }
    }
    response
}

/// Whether a response has no body or plain text, as the framework's rejections do.
fn has_no_body_or_text(headers: &HeaderMap) -> bool {
    headers
        .get(CONTENT_TYPE)
        .is_none_or(|media_type| media_type.as_bytes().starts_with(b"text/plain"))
}

/// Maps a status to a problem kind.
///
/// The framework answers 422 to JSON of a wrong type; here 422 is reserved for invalid allocations.
fn kind_of(status: StatusCode) -> ProblemKind {
    match status {
        StatusCode::UNPROCESSABLE_ENTITY => ProblemKind::Malformed,
        other => ProblemKind::from_status(other),
    }
}
