//! `GET /v1/budgets/{budget}/aggregate/stream`: the answer at once, then each newer one, as server-sent events.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream::unfold;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue};
use runtime::problem::{Problem, ProblemKind};
use schemas::AggregateVersion;

use super::{ApiState, RETRY_AFTER, no_answer};
use crate::answer::Answer;
use crate::answer_streams::{AnswerStream, StreamEvent};
use crate::client_limit::LimitReached;

const EVENT_STREAM: HeaderValue = HeaderValue::from_static("text/event-stream");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Tells nginx to pass each event on at once.
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

const BEAT: Bytes = Bytes::from_static(b"event: beat\ndata: {}\n\n");
/// Bounds of the delay after which a browser reconnects, in milliseconds. Each stream gets its own, so that readers who
/// lost their connection together do not come back together.
const RECONNECT_DELAY_MS: std::ops::RangeInclusive<u32> = 2_000..=8_000;

#[utoipa::path(
    get,
    path = "/v1/budgets/{budget}/aggregate/stream",
    tag = "results",
    operation_id = "streamAggregate",
    summary = "Follow the average as server-sent events",
    params(
        ("budget" = String, Path, description = "The budget's id", example = "taxes"),
        ("Last-Event-ID" = Option<String>, Header, description = "The last version that the client has"),
    ),
    responses(
        (status = 200, description = "Events `aggregate` and `beat`", body = String,
            content_type = "text/event-stream"),
    ),
)]
pub(super) async fn of_budget(
    State(api): State<Arc<ApiState>>,
    Path(budget): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, _) = request.into_parts();
    let entry = api.aggregates.entry(&budget).ok_or_else(|| api.no_such_budget(&[&budget]))?;
    // If no answer exists, the reader gets a status that says so, and no stream.
    api.aggregates.read(&entry).await.map_err(|reason| no_answer(reason, None))?;
    let opened = api.streams.open(entry, last_event_id(&parts.headers), api.client(&parts));
    let stream = opened.map_err(too_many_streams)?;
    let mut response = Response::new(Body::from_stream(events(stream)));
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

/// The bytes of a stream: the reconnection delay, then each event.
fn events(stream: AnswerStream) -> impl Stream<Item = Result<Bytes, Infallible>> {
    unfold((stream, true), async |(mut stream, first)| {
        let event = match stream.next().await? {
            StreamEvent::Answer(answer) => event(&answer),
            StreamEvent::Beat => BEAT,
        };
        let bytes = if first { with_reconnect_delay(&event) } else { event };
        Some((Ok(bytes), (stream, false)))
    })
}

fn with_reconnect_delay(event: &[u8]) -> Bytes {
    let delay_ms = fastrand::u32(RECONNECT_DELAY_MS);
    [format!("retry: {delay_ms}\n\n").as_bytes(), event].concat().into()
}

/// An answer as a server-sent event, rendered once for all streams. Its JSON has no line breaks. A withheld answer has
/// no `id`, so that a reader keeps the version of the newest results that it was shown.
fn event(answer: &Answer) -> Bytes {
    answer
        .event(|| {
            let id = match answer.is_withheld() {
                true => String::new(),
                false => format!("id: {}\n", answer.version()),
            };
            let mut bytes = format!("event: aggregate\n{id}data: ").into_bytes();
            bytes.extend_from_slice(&answer.plain().body);
            bytes.extend_from_slice(b"\n\n");
            bytes.into()
        })
        .clone()
}
