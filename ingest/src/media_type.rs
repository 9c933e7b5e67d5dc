//! What a request's body says it is.

use axum::extract::FromRequestParts;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use runtime::problem::{Problem, ProblemKind};

/// A media type that some route reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MediaType {
    Json,
    Ndjson,
}

impl MediaType {
    fn of(text: &[u8]) -> Option<Self> {
        let essence = text.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        if essence.eq_ignore_ascii_case(b"application/json") {
            Some(Self::Json)
        } else if essence.eq_ignore_ascii_case(b"application/x-ndjson") {
            Some(Self::Ndjson)
        } else {
            None
        }
    }
}

fn of_request(parts: &Parts) -> Option<MediaType> {
    parts.headers.get(CONTENT_TYPE).and_then(|value| MediaType::of(value.as_bytes()))
}

fn unsupported(read_here: &str) -> Problem {
    Problem::new(ProblemKind::UnsupportedMediaType)
        .detail(format!("`Content-Type` must be {read_here}"))
}

impl<S: Sync> FromRequestParts<S> for MediaType {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        of_request(parts).ok_or_else(|| unsupported("`application/json` or `application/x-ndjson`"))
    }
}

/// That a body is JSON, for a route that reads nothing else.
#[derive(Debug, Clone, Copy)]
pub(crate) struct IsJson;

impl<S: Sync> FromRequestParts<S> for IsJson {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        match of_request(parts) {
            Some(MediaType::Json) => Ok(Self),
            _ => Err(unsupported("`application/json`")),
        }
    }
}
