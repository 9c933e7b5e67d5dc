//! `GET /v1/budgets/{budget}/aggregate/stream`: the answer at once, then each newer one, as server-sent events.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue};
use runtime::problem::{Problem, ProblemKind};
use schemas::AggregateVersion;

use super::{ApiState, RETRY_AFTER, no_answer};
use crate::client_limit::LimitReached;

const EVENT_STREAM: HeaderValue = HeaderValue::from_static("text/event-stream");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Tells nginx to pass each event on at once.
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

pub(super) async fn of_budget(
    State(api): State<Arc<ApiState>>,
    Path(budget): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, _) = request.into_parts();
    let slot = api.aggregates.slot(&budget).ok_or_else(|| api.no_such_budget(&[&budget]))?;
    // Without any answer the reader is told so by a status that it understands.
    api.aggregates.read(&slot).await.map_err(|reason| no_answer(reason, None))?;
    let opened = api.streams.open(slot, last_event_id(&parts.headers), api.client(&parts));
    let stream = opened.map_err(too_many_streams)?;
    let mut response = Response::new(Body::from_stream(stream));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, EVENT_STREAM);
    headers.insert(CACHE_CONTROL, NO_STORE);
    headers.insert(ACCEL_BUFFERING, HeaderValue::from_static("no"));
    Ok(response)
}

/// The version that the reader had before it lost its connection. Any other text is ignored.
fn last_event_id(headers: &HeaderMap) -> Option<AggregateVersion> {
    headers.get(LAST_EVENT_ID)?.to_str().ok()?.parse().ok()
}

fn too_many_streams(reached: LimitReached) -> Problem {
    let problem = match reached {
        LimitReached::Total => {
            Problem::new(ProblemKind::Unavailable).detail("too many streams are open")
        }
        LimitReached::OfClient => Problem::new(ProblemKind::RateLimited)
            .detail("too many streams are open from this address"),
    };
    problem.retry_after(RETRY_AFTER)
}
