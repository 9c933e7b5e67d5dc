//! `GET /v1/budgets/{budget}/aggregate/ws`: the events of the stream as messages of a WebSocket.
//!
//! A message is `{"event":"aggregate","id":"…","data":{…}}` or `{"event":"beat","data":{}}`. `answer_streams` owns the
//! limits, the order and the skipping of answers. This module owns what a WebSocket adds: a client can send messages.
//! The service expects none, so a message of the client is bounded in size and ends the connection; a few control
//! frames of the protocol do not. Pings find clients that are gone.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade};
use axum::extract::{FromRequestParts, Path, Query, Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Uri};
use runtime::problem::Problem;
use schemas::AggregateVersion;
use tokio::time::{Instant, sleep_until, timeout};
use tungstenite::error::{CapacityError, Error as ProtocolError};

use super::{ApiState, no_answer};
use crate::answer::Answer;
use crate::answer_streams::{AnswerStream, StreamEvent};
use crate::client_limit::LimitReached;

/// Name and version of the messages, for clients that ask for it.
const SUBPROTOCOL: &str = "allocator.aggregate.v1";
/// Maximum size of a frame from a client. Longer than any frame of the protocol's own.
const MAX_CLIENT_FRAME_BYTES: usize = 1024;
/// Buffer for frames from the client.
const READ_BUFFER_BYTES: usize = 1024;
/// A client that has sent no frame between two pings is gone.
const PING_INTERVAL: Duration = Duration::from_secs(15);
/// Maximum number of frames from a client between two pings; each ping of the client costs an answer.
const MAX_FRAMES_PER_INTERVAL: u32 = 64;
/// How long a client may take to close after it was asked to.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

const BEAT: Utf8Bytes = Utf8Bytes::from_static("{\"event\":\"beat\",\"data\":{}}");
const SEC_WEBSOCKET_VERSION: HeaderName = HeaderName::from_static("sec-websocket-version");

/// Codes of RFC 6455 and of IANA's registry.
mod code {
    pub const GOING_AWAY: u16 = 1001;
    pub const PROTOCOL_ERROR: u16 = 1002;
    pub const INVALID_TEXT: u16 = 1007;
    pub const POLICY: u16 = 1008;
    pub const TOO_BIG: u16 = 1009;
    pub const TRY_AGAIN_LATER: u16 = 1013;
}

/// Why the server ends a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ending {
    code: u16,
    reason: &'static str,
}

const GOING_AWAY: Ending =
    Ending { code: code::GOING_AWAY, reason: "this instance stops; connect again" };
const NOTHING_TO_SAY: Ending =
    Ending { code: code::POLICY, reason: "this stream takes no messages" };
const TOO_MANY_FRAMES: Ending = Ending { code: code::POLICY, reason: "too many frames" };

#[utoipa::path(
    get,
    path = "/v1/budgets/{budget}/aggregate/ws",
    tag = "results",
    operation_id = "openAggregateWebSocket",
    summary = "Follow the average over a WebSocket",
    params(
        ("budget" = String, Path, description = "The budget's id", example = "taxes"),
        ("last_event_id" = Option<String>, Query, description = "The last version that the client has"),
    ),
    responses(
        (status = 101, description = "The handshake succeeded"),
    ),
)]
pub(super) async fn of_budget(
    State(api): State<Arc<ApiState>>,
    Path(budget): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let (mut parts, _) = request.into_parts();
    let entry = api.aggregates.entry(&budget).ok_or_else(|| api.no_such_budget(&[&budget]))?;
    let upgrade = WebSocketUpgrade::from_request_parts(&mut parts, &()).await;
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade,
        Err(rejection) => return Ok(no_upgrade(rejection)),
    };
    // If no answer exists, the reader gets a status that says so, and no stream.
    api.aggregates.read(&entry).await.map_err(|reason| no_answer(reason, None))?;
    let opened = api.streams.open(entry, last_event_id(&parts.uri), api.client(&parts));
    let upgrade = upgrade
        .protocols([SUBPROTOCOL])
        .read_buffer_size(READ_BUFFER_BYTES)
        // Messages are written whole, and the next one is made once the client has taken this one.
        .write_buffer_size(0)
        .max_frame_size(MAX_CLIENT_FRAME_BYTES)
        .max_message_size(MAX_CLIENT_FRAME_BYTES);
    Ok(upgrade.on_upgrade(async move |socket| match opened {
        Ok(stream) => serve(socket, stream).await,
        Err(reached) => end(socket, refusal(reached)).await,
    }))
}

/// Answers a request that is no handshake. A client of another version learns ours.
fn no_upgrade(rejection: WebSocketUpgradeRejection) -> Response {
    let mut response = rejection.into_response();
    response.headers_mut().insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    response
}

/// The version that the reader had before it lost its connection: `?last_event_id=`, since browsers set no headers
/// here.
fn last_event_id(uri: &Uri) -> Option<AggregateVersion> {
    let Ok(Query(pairs)) = Query::<Vec<(String, String)>>::try_from_uri(uri) else { return None };
    let (_, version) = pairs.into_iter().find(|(name, _)| name == "last_event_id")?;
    version.parse().ok()
}

/// Browsers do not show scripts the status of a refused handshake, so the refusal is a code.
fn refusal(reached: LimitReached) -> Ending {
    let reason = match reached {
        LimitReached::Total => "too many streams are open",
        LimitReached::OfClient => "too many streams are open from this address",
    };
    Ending { code: code::TRY_AGAIN_LATER, reason }
}

async fn serve(mut socket: WebSocket, mut stream: AnswerStream) {
    let ending = exchange(&mut socket, &mut stream).await;
    // Makes room for another stream before this client has closed.
    drop(stream);
    if let Some(ending) = ending {
        end(socket, ending).await;
    }
}

/// Sends events until the connection is to be ended; `None` if it has ended already.
async fn exchange(socket: &mut WebSocket, stream: &mut AnswerStream) -> Option<Ending> {
    let mut ping_at = Instant::now() + PING_INTERVAL;
    // Frames since the last ping. The handshake shows as much as a frame.
    let mut frames = 1;
    loop {
        tokio::select! {
            event = stream.next() => {
                let Some(event) = event else { return Some(GOING_AWAY) };
                if !send(socket, stream, Message::Text(text(&event))).await {
                    return None;
                }
            }
            frame = socket.recv() => {
                frames += 1;
                match frame {
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) if frames <= MAX_FRAMES_PER_INTERVAL => {}
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => return Some(TOO_MANY_FRAMES),
                    Some(Ok(Message::Text(_) | Message::Binary(_))) => return Some(NOTHING_TO_SAY),
                    // Its answer is sent while the rest is read.
                    Some(Ok(Message::Close(_))) => {
                        let _ = timeout(CLOSE_TIMEOUT, closed(socket)).await;
                        return None;
                    }
                    Some(Err(error)) => return violation(error),
                    None => return None,
                }
            }
            () = sleep_until(ping_at) => {
                if frames == 0 || !send(socket, stream, Message::Ping(Bytes::new())).await {
                    return None;
                }
                (frames, ping_at) = (0, Instant::now() + PING_INTERVAL);
            }
        }
    }
}

/// Sends a message; returns whether the client took it. A client that reads too slowly is ended by its socket's write
/// timeout. While the process stops, nobody is waited for.
async fn send(socket: &mut WebSocket, stream: &AnswerStream, message: Message) -> bool {
    tokio::select! {
        biased;
        sent = socket.send(message) => sent.is_ok(),
        () = stream.stopped() => false,
    }
}

/// Asks the client to close, and waits for it for a moment.
async fn end(mut socket: WebSocket, Ending { code, reason }: Ending) {
    let close = CloseFrame { code, reason: Utf8Bytes::from_static(reason) };
    let _ = timeout(CLOSE_TIMEOUT, async {
        if socket.send(Message::Close(Some(close))).await.is_ok() {
            closed(&mut socket).await;
        }
    })
    .await;
}

async fn closed(socket: &mut WebSocket) {
    while let Some(Ok(_)) = socket.recv().await {}
}

/// The code for a client that broke the protocol; `None` if the connection is broken.
fn violation(error: axum::Error) -> Option<Ending> {
    let error = error.into_inner();
    let (code, reason) = match error.downcast_ref::<ProtocolError>()? {
        ProtocolError::Capacity(CapacityError::MessageTooLong { .. }) => {
            (code::TOO_BIG, "this stream takes no messages")
        }
        ProtocolError::Utf8(_) => (code::INVALID_TEXT, "the text is not UTF-8"),
        ProtocolError::Protocol(_) => (code::PROTOCOL_ERROR, "not a valid frame"),
        _ => return None,
    };
    Some(Ending { code, reason })
}

fn text(event: &StreamEvent) -> Utf8Bytes {
    match event {
        StreamEvent::Beat => BEAT,
        StreamEvent::Answer(answer) => {
            // Cannot fail: the message was made of text.
            Utf8Bytes::try_from(message(answer)).unwrap_or(BEAT)
        }
    }
}

/// An answer as a message, rendered once for all clients. A withheld one has no `id`: see `routes::stream`.
fn message(answer: &Answer) -> Bytes {
    answer
        .message(|| {
            let id = match answer.is_withheld() {
                true => String::new(),
                false => format!("\"id\":\"{}\",", answer.version()),
            };
            let mut bytes = format!("{{\"event\":\"aggregate\",{id}\"data\":").into_bytes();
            bytes.extend_from_slice(&answer.plain().body);
            bytes.push(b'}');
            bytes.into()
        })
        .clone()
}
