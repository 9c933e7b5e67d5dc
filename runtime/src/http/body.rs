//! A request's body, bounded in size, and the memory that all bodies together may take.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes, HttpBody};
use futures_util::FutureExt;
use http_body_util::BodyExt;
use hyper::body::{Frame, SizeHint};

/// The memory that the bodies of all requests not answered yet may take.
#[derive(Debug)]
pub(super) struct Buffered {
    free_bytes: AtomicUsize,
}

impl Buffered {
    pub(super) fn new(max_bytes: usize) -> Arc<Self> {
        Arc::new(Self { free_bytes: AtomicUsize::new(max_bytes) })
    }

    fn take(&self, bytes: usize) -> bool {
        let left = |free: usize| free.checked_sub(bytes);
        self.free_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, left).is_ok()
    }
}

/// How the reading of a body stands, as far as it matters for the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Reading {
    /// Nothing is waited for.
    Well,
    /// The handler waits for the client to send more.
    Waiting,
    /// More came than one request may send.
    TooLarge,
    /// More came than all requests together may send.
    NoRoom,
}

/// Tells the layer how a body went, however the handler took it; gives its memory back when the request is over.
#[derive(Debug)]
pub(super) struct BodyWatch {
    reading: AtomicU8,
    held_bytes: AtomicUsize,
    buffered: Arc<Buffered>,
}

impl BodyWatch {
    pub(super) fn reading(&self) -> Reading {
        match self.reading.load(Ordering::Relaxed) {
            state if state == Reading::Waiting as u8 => Reading::Waiting,
            state if state == Reading::TooLarge as u8 => Reading::TooLarge,
            state if state == Reading::NoRoom as u8 => Reading::NoRoom,
            _ => Reading::Well,
        }
    }

    fn set(&self, reading: Reading) {
        self.reading.store(reading as u8, Ordering::Relaxed);
    }
}

impl Drop for BodyWatch {
    fn drop(&mut self) {
        let held = self.held_bytes.load(Ordering::Relaxed);
        self.buffered.free_bytes.fetch_add(held, Ordering::Relaxed);
    }
}

/// How much of a body that is too large is still read and thrown away: a client that is cut off while it sends never
/// sees the answer.
pub(super) const DISCARD_BYTES: usize = 16 * 1024 * 1024;

/// The body that a handler sees.
struct BoundedBody {
    inner: Body,
    left_bytes: usize,
    over: Option<Over>,
    watch: Arc<BodyWatch>,
}

/// A body that turned out to be too large.
#[derive(Clone, Copy)]
struct Over {
    why: Reading,
    discard_bytes: usize,
}

/// Bounds a body.
pub(super) fn bound(
    body: Body,
    max_bytes: usize,
    buffered: &Arc<Buffered>,
) -> (Body, Arc<BodyWatch>) {
    let watch = Arc::new(BodyWatch {
        reading: AtomicU8::new(Reading::Well as u8),
        held_bytes: AtomicUsize::new(0),
        buffered: Arc::clone(buffered),
    });
    let bounded =
        BoundedBody { inner: body, left_bytes: max_bytes, over: None, watch: Arc::clone(&watch) };
    (Body::new(bounded), watch)
}

/// What a frame costs in memory beside its bytes, until the body is whole: a body in many small frames costs more than
/// its length.
const FRAME_BYTES: usize = 96;

impl BoundedBody {
    fn account(&mut self, bytes: usize) -> Result<(), Reading> {
        self.left_bytes = self.left_bytes.checked_sub(bytes).ok_or(Reading::TooLarge)?;
        let held = bytes + FRAME_BYTES;
        if !self.watch.buffered.take(held) {
            return Err(Reading::NoRoom);
        }
        self.watch.held_bytes.fetch_add(held, Ordering::Relaxed);
        Ok(())
    }
}

impl HttpBody for BoundedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        loop {
            self.watch.set(self.over.map_or(Reading::Waiting, |over| over.why));
            let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
            let bytes = match &frame {
                Some(Ok(frame)) => frame.data_ref().map_or(0, Bytes::len),
                _ => 0,
            };
            let ended = !matches!(frame, Some(Ok(_)));
            match self.over {
                Some(over) if ended || bytes > over.discard_bytes => {
                    let error =
                        io::Error::new(io::ErrorKind::FileTooLarge, "the body is too large");
                    return Poll::Ready(Some(Err(axum::Error::new(error))));
                }
                Some(over) => {
                    self.over = Some(Over { discard_bytes: over.discard_bytes - bytes, ..over });
                }
                None if ended => {
                    self.watch.set(Reading::Well);
                    return Poll::Ready(frame);
                }
                None => match self.account(bytes) {
                    Ok(()) => {
                        self.watch.set(Reading::Well);
                        return Poll::Ready(frame);
                    }
                    Err(why) => self.over = Some(Over { why, discard_bytes: DISCARD_BYTES }),
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

/// An answer from so many bytes on is memory that waits for its reader, like a request's body.
const LARGE_ANSWER_BYTES: u64 = 64 * 1024;

/// The body of a large answer to a request that had a body. Both hold their room until it is written, or given up.
struct HeldBody {
    inner: Body,
    _watch: Arc<BodyWatch>,
}

/// Lets an answer hold the room of its request, and its own, if it is large.
pub(super) fn hold(answer: Body, watch: &mut Option<Arc<BodyWatch>>) -> Body {
    let bytes = answer.size_hint().lower();
    if bytes < LARGE_ANSWER_BYTES {
        return answer;
    }
    let Some(watch) = watch.take() else { return answer };
    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    // It is there already, and may say that something was accepted: without room it is answered all the same.
    if watch.buffered.take(bytes) {
        watch.held_bytes.fetch_add(bytes, Ordering::Relaxed);
    }
    Body::new(HeldBody { inner: answer, _watch: watch })
}

impl HttpBody for HeldBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// The text of a body that is short and there already, which is what a framework's rejection has.
pub(super) fn short_text(mut body: Body) -> Option<String> {
    const SHORT: u64 = 2048;
    if body.size_hint().upper().is_none_or(|bytes| bytes > SHORT) {
        return None;
    }
    let frame = body.frame().now_or_never()??.ok()?;
    let data = frame.into_data().ok()?;
    String::from_utf8(data.to_vec()).ok()
}
