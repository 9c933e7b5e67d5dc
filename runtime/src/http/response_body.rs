//! Charges large response bodies to the memory that all bodies share, until their client has read them.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes, HttpBody};
use futures_util::FutureExt;
use http_body_util::BodyExt;
use hyper::body::{Frame, SizeHint};

use super::body_memory::{BodyMemory, MemoryFull, Reservation};
use super::request_body::BodyMonitor;
use crate::client::ClientNetwork;

/// Size from which a response counts as buffered memory, like a request body.
const LARGE_RESPONSE_BYTES: u64 = 64 * 1024;

/// Maximum bytes handed to the connection at once.
const PIECE_BYTES: usize = 64 * 1024;

/// A large response body with the memory reservations of request and response. The reservations are released once the
/// body is written or dropped.
///
/// The connection drops a body as soon as it has taken the last frame, which may be all of it. So frames are handed
/// over in pieces, and the body lives until its client has read nearly all.
struct ReservedBody {
    inner: Body,
    /// The rest of a frame.
    pending: Bytes,
    _monitor: Arc<BodyMonitor>,
}

impl ReservedBody {
    fn wrap(inner: Body, monitor: Arc<BodyMonitor>) -> Body {
        Body::new(Self { inner, pending: Bytes::new(), _monitor: monitor })
    }
}

/// Makes a large response keep its request's memory reservation, and reserve its own size.
pub(super) fn keep_reservation(response: Body, monitor: &mut Option<Arc<BodyMonitor>>) -> Body {
    let bytes = response.size_hint().lower();
    if bytes < LARGE_RESPONSE_BYTES {
        return response;
    }
    let Some(monitor) = monitor.take() else { return response };
    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    // The response exists and may report something accepted, so it is sent even beyond the limit.
    let _ = monitor.reservation.grow(bytes);
    ReservedBody::wrap(response, monitor)
}

impl HttpBody for ReservedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.pending.is_empty() {
            match ready!(Pin::new(&mut self.inner).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.pending = data,
                    Err(frame) => return Poll::Ready(Some(Ok(frame))),
                },
                end => return Poll::Ready(end),
            }
        }
        let bytes = self.pending.len().min(PIECE_BYTES);
        Poll::Ready(Some(Ok(Frame::data(self.pending.split_to(bytes)))))
    }

    fn is_end_stream(&self) -> bool {
        self.pending.is_empty() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (pending, inner) = (self.pending.len() as u64, self.inner.size_hint());
        let mut hint = SizeHint::new();
        hint.set_lower(inner.lower().saturating_add(pending));
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper.saturating_add(pending));
        }
        hint
    }
}

/// Marks a response whose body exists for this request alone, however slowly its client reads.
///
/// The body is charged to the memory of all buffered bodies. If that is used up, the client gets a problem instead:
/// only for requests that changed nothing. Bodies that all clients share need no mark.
#[derive(Debug, Clone, Copy)]
pub struct ChargedBody;

/// Charges a body.
///
/// # Errors
/// If the memory, or the client's part of it, is used up.
pub(super) fn charge(
    response: Body,
    memory: &Arc<BodyMemory>,
    client: ClientNetwork,
) -> Result<Body, MemoryFull> {
    let bytes = usize::try_from(response.size_hint().lower()).unwrap_or(usize::MAX);
    let reservation = Reservation::empty(memory, client);
    reservation.grow(bytes)?;
    Ok(ReservedBody::wrap(response, BodyMonitor::new(reservation)))
}

/// Returns the text of a short body that is available at once, as in the framework's rejections.
pub(super) fn short_text(mut body: Body) -> Option<String> {
    const MAX_TEXT_BYTES: u64 = 2048;
    if body.size_hint().upper().is_none_or(|bytes| bytes > MAX_TEXT_BYTES) {
        return None;
    }
    let frame = body.frame().now_or_never()??.ok()?;
    let data = frame.into_data().ok()?;
    String::from_utf8(data.to_vec()).ok()
}
