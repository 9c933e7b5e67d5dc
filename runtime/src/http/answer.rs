//! The last look at an answer: whatever failed, and whoever says so, leaves as a problem with the request's id.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, StatusCode};

use super::body;
use super::request_id::RequestId;
use crate::problem::{Problem, ProblemKind};

/// The route of a request that matches none.
pub(super) const UNMATCHED: &str = "unmatched";

/// Turns a failure into a problem that names its request. Answers in a form of their own (JSON, HTML) stay as they
/// are, and so does everything that is no failure.
pub(super) fn as_problem(mut response: Response, id: &RequestId, route: &str) -> Response {
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        response.headers_mut().remove(CONTENT_LENGTH);
        *response.body_mut() = Body::from(problem.instance(id.as_str()).to_json());
        return response;
    }
    if !is_bare(response.headers()) {
        return response;
    }
    let (parts, body) = response.into_parts();
    let kind = kind_of(parts.status);
    let mut problem = Problem::new(kind).instance(id.as_str());
    // A rejection's text says what is wrong with the request. Of our own faults nothing is told.
    let text = body::short_text(body).filter(|text| !text.is_empty());
    match text {
        Some(text) if parts.status.is_client_error() => problem = problem.detail(text),
        _ if kind == ProblemKind::MethodNotAllowed => {
            problem = problem.detail("the route takes only the methods that `Allow` names");
        }
        _ if kind == ProblemKind::NotFound && route == UNMATCHED => {
            problem = problem.detail("no route matches this path");
        }
        _ => {}
    }
    let mut answer = problem.into_response();
    answer.extensions_mut().remove::<Problem>();
    // What the answer had besides its body, for example `WWW-Authenticate`, it keeps.
    for (name, value) in &parts.headers {
        if !answer.headers().contains_key(name) && name != CONTENT_LENGTH {
            answer.headers_mut().append(name, value.clone());
        }
    }
    answer
}

/// No body, or plain text: what a framework answers.
fn is_bare(headers: &HeaderMap) -> bool {
    headers
        .get(CONTENT_TYPE)
        .is_none_or(|media_type| media_type.as_bytes().starts_with(b"text/plain"))
}

/// The framework calls JSON of wrong types 422; here that is kept for allocations that are wrong.
fn kind_of(status: StatusCode) -> ProblemKind {
    match status {
        StatusCode::UNPROCESSABLE_ENTITY => ProblemKind::Malformed,
        other => ProblemKind::from_status(other),
    }
}
