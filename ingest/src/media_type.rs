//! The media types of request bodies.

use axum::extract::FromRequestParts;
use http::request::Parts;
use runtime::http::has_media_type;
use runtime::problem::{Problem, ProblemKind};

/// A media type that at least one route accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MediaType {
    Json,
    Ndjson,
}

fn content_type(parts: &Parts) -> Option<MediaType> {
    if has_media_type(&parts.headers, "application/json") {
        Some(MediaType::Json)
    } else if has_media_type(&parts.headers, "application/x-ndjson") {
        Some(MediaType::Ndjson)
    } else {
        None
    }
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
