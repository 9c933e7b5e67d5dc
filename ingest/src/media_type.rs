//! The media types of request bodies.

use axum::extract::FromRequestParts;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use runtime::problem::{Problem, ProblemKind};

/// A media type that at least one route accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MediaType {
    Json,
    Ndjson,
}

impl MediaType {
    fn parse(text: &[u8]) -> Option<Self> {
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

fn content_type(parts: &Parts) -> Option<MediaType> {
    parts.headers.get(CONTENT_TYPE).and_then(|value| MediaType::parse(value.as_bytes()))
}

fn unsupported(accepted: &str) -> Problem {
    Problem::new(ProblemKind::UnsupportedMediaType)
        .detail(format!("`Content-Type` must be {accepted}"))
}

impl<S: Sync> FromRequestParts<S> for MediaType {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        content_type(parts)
            .ok_or_else(|| unsupported("`application/json` or `application/x-ndjson`"))
    }
}

/// Requires a JSON body, for routes that accept nothing else.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RequireJson;

impl<S: Sync> FromRequestParts<S> for RequireJson {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        match content_type(parts) {
            Some(MediaType::Json) => Ok(Self),
            _ => Err(unsupported("`application/json`")),
        }
    }
}
