//! Limits the size of each request body, and charges it to the memory that all bodies share.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes, HttpBody};
use http_body_util::BodyExt;
use hyper::body::{Frame, SizeHint};
use parking_lot::Mutex;
use tokio::time::{Instant, timeout_at};

use super::body_memory::{MemoryFull, Reservation};

/// Progress of reading a body, as far as it decides the response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum BodyState {
    /// The handler does not wait for the client.
    Idle,
    /// The handler waits for more of the body.
    Waiting,
    /// The body exceeds the limit of one request.
    TooLarge,
    /// The bodies of all requests together exceed their limit.
    OutOfMemory,
    /// The bodies of all requests of the client exceed its part of that limit.
    ClientOutOfMemory,
    /// The body did not arrive in time.
    Late,
}

/// Shows the layer a body's state, whatever the handler does with the body. Releases its memory on drop.
#[derive(Debug)]
pub(super) struct BodyMonitor {
    state: AtomicU8,
    pub(super) reservation: Reservation,
    /// What the handler has dropped without reading its end.
    unread: Mutex<Option<Body>>,
}

impl BodyMonitor {
    pub(super) fn new(reservation: Reservation) -> Arc<Self> {
        Arc::new(Self {
            state: AtomicU8::new(BodyState::Idle as u8),
            reservation,
            unread: Mutex::default(),
        })
    }

    pub(super) fn state(&self) -> BodyState {
        match self.state.load(Ordering::Relaxed) {
            state if state == BodyState::Waiting as u8 => BodyState::Waiting,
            state if state == BodyState::TooLarge as u8 => BodyState::TooLarge,
            state if state == BodyState::OutOfMemory as u8 => BodyState::OutOfMemory,
            state if state == BodyState::ClientOutOfMemory as u8 => BodyState::ClientOutOfMemory,
            state if state == BodyState::Late as u8 => BodyState::Late,
            _ => BodyState::Idle,
        }
    }

    /// Ends a body that the handler waits for: it fails when it is polled next. Returns whether the handler waits for
    /// it.
    pub(super) fn end_if_waiting(&self) -> bool {
        let is_waiting = self.state() == BodyState::Waiting;
        if is_waiting {
            self.set(BodyState::Late);
        }
        is_waiting
    }

    /// Takes the rest of a body that the handler has dropped.
    pub(super) fn take_unread(&self) -> Option<Body> {
        self.unread.lock().take()
    }

    fn set(&self, state: BodyState) {
        self.state.store(state as u8, Ordering::Relaxed);
    }
}

/// Maximum bytes that are read and discarded of a body that is oversized, or that the handler does not want.
///
/// A client whose connection closes while it sends would not see the response.
pub(super) const MAX_DISCARDED_BYTES: usize = 16 * 1024 * 1024;

/// The size-limited body that a handler reads.
struct LimitedBody {
    inner: Body,
    remaining_bytes: usize,
    /// What the frames may still cost besides their bytes.
    remaining_overhead_bytes: usize,
    rejected: Option<Rejected>,
    monitor: Arc<BodyMonitor>,
}

/// A body that exceeded a limit and is being discarded.
#[derive(Clone, Copy)]
struct Rejected {
    state: BodyState,
    discard_bytes: usize,
}

/// Wraps a body in the limits.
pub(super) fn limit(
    body: Body,
    max_bytes: usize,
    reservation: Reservation,
) -> (Body, Arc<BodyMonitor>) {
    let monitor = BodyMonitor::new(reservation);
    let limited = LimitedBody {
        inner: body,
        remaining_bytes: max_bytes,
        remaining_overhead_bytes: max_overhead_bytes(max_bytes),
        rejected: None,
        monitor: Arc::clone(&monitor),
    };
    (Body::new(limited), monitor)
}

fn max_overhead_bytes(max_bytes: usize) -> usize {
    max_bytes.saturating_mul(2).max(MIN_OVERHEAD_BYTES)
}

/// Returns what a body of at most so many bytes may cost, its overhead included.
pub(super) fn largest_cost_bytes(max_bytes: usize) -> usize {
    max_bytes.saturating_add(max_overhead_bytes(max_bytes))
}

/// Memory overhead of a frame until the body is complete. A body in many small frames costs more than its length.
const FRAME_OVERHEAD_BYTES: usize = 96;

/// Overhead that each body may have, however small it must be: networks cut bodies into frames as they like.
const MIN_OVERHEAD_BYTES: usize = 64 * 1024;

impl LimitedBody {
    fn charge(&mut self, bytes: usize) -> Result<(), BodyState> {
        self.remaining_bytes =
            self.remaining_bytes.checked_sub(bytes).ok_or(BodyState::TooLarge)?;
        // Of many tiny frames, a single request could otherwise take all of the shared memory.
        self.remaining_overhead_bytes = self
            .remaining_overhead_bytes
            .checked_sub(FRAME_OVERHEAD_BYTES)
            .ok_or(BodyState::TooLarge)?;
        self.monitor.reservation.grow(bytes + FRAME_OVERHEAD_BYTES).map_err(|full| match full {
            MemoryFull::Shared => BodyState::OutOfMemory,
            MemoryFull::OfClient => BodyState::ClientOutOfMemory,
        })
    }
}

impl Drop for LimitedBody {
    fn drop(&mut self) {
        if self.rejected.is_none()
            && self.monitor.state() == BodyState::Idle
            && !self.inner.is_end_stream()
        {
            let rest = std::mem::replace(&mut self.inner, Body::empty());
            *self.monitor.unread.lock() = Some(rest);
        }
    }
}

/// Reads and discards the rest of a body, until the deadline. Then the connection closes.
pub(super) async fn discard(mut body: Body, deadline: Instant) {
    let mut left_bytes = MAX_DISCARDED_BYTES;
    let reading = async {
        while let Some(Ok(frame)) = body.frame().await {
            let bytes = frame.data_ref().map_or(0, Bytes::len);
            let Some(left) = left_bytes.checked_sub(bytes) else { return };
            left_bytes = left;
        }
    };
    // A slow client gets no more time than for a body that is read.
    let _ = timeout_at(deadline, reading).await;
}

impl HttpBody for LimitedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.monitor.state() == BodyState::Late {
            let error = io::Error::new(io::ErrorKind::TimedOut, "the body is late");
            return Poll::Ready(Some(Err(axum::Error::new(error))));
        }
        loop {
            self.monitor.set(self.rejected.map_or(BodyState::Waiting, |rejected| rejected.state));
            let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
            let bytes = match &frame {
                Some(Ok(frame)) => frame.data_ref().map_or(0, Bytes::len),
                _ => 0,
            };
            let ended = !matches!(frame, Some(Ok(_)));
            match self.rejected {
                Some(rejected) if ended || bytes > rejected.discard_bytes => {
                    let error =
                        io::Error::new(io::ErrorKind::FileTooLarge, "the body is too large");
                    return Poll::Ready(Some(Err(axum::Error::new(error))));
                }
                Some(rejected) => {
                    self.rejected = Some(Rejected {
                        discard_bytes: rejected.discard_bytes - bytes,
                        ..rejected
                    });
                }
                None if ended => {
                    self.inner = Body::empty();
                    self.monitor.set(BodyState::Idle);
                    return Poll::Ready(frame);
                }
                None => match self.charge(bytes) {
                    Ok(()) => {
                        self.monitor.set(BodyState::Idle);
                        return Poll::Ready(frame);
                    }
                    Err(state) => {
                        self.rejected = Some(Rejected { state, discard_bytes: MAX_DISCARDED_BYTES })
                    }
                },
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// Removes the byte order mark with which some programs begin UTF-8. Readers of JSON may ignore it (RFC 8259, 8.1).
pub fn without_byte_order_mark(body: &[u8]) -> &[u8] {
    body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body)
}
