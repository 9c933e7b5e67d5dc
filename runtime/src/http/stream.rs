//! A client's socket as the server sees it: one place out of a bounded number, with a limit on how long the client may
//! take nothing, and with the HTTP library's own bodiless refusals written as problems.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::StatusCode;
use prometheus::IntGauge;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep, sleep};
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::connection::head_refused;

/// A connection's place among those that may be open. It goes with the socket, also into an upgraded one.
#[derive(Debug)]
pub(super) struct Place {
    open: IntGauge,
    _permit: OwnedSemaphorePermit,
    _tracked: TaskTrackerToken,
}

impl Place {
    pub(super) fn take(
        open: &IntGauge,
        permit: OwnedSemaphorePermit,
        tracked: TaskTrackerToken,
    ) -> Self {
        open.inc();
        Self { open: open.clone(), _permit: permit, _tracked: tracked }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.open.dec();
    }
}

/// A client's socket.
#[derive(Debug)]
pub(super) struct ClientStream {
    tcp: TcpStream,
    /// How long the client may take nothing.
    patience: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
    refusal: Option<Refusal>,
    _place: Place,
}

/// A problem on its way to the client in the place of the library's own answer.
#[derive(Debug)]
struct Refusal {
    bytes: Vec<u8>,
    written: usize,
}

impl ClientStream {
    pub(super) fn new(tcp: TcpStream, patience: Duration, place: Place) -> Self {
        Self { tcp, patience, stalled: None, refusal: None, _place: place }
    }

    /// Passes a write on, unless the client has taken nothing for too long.
    fn patiently(
        &mut self,
        cx: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut TcpStream>, &mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(outcome) = write(Pin::new(&mut self.tcp), cx) {
            self.stalled = None;
            return Poll::Ready(outcome);
        }
        let patience = self.patience;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(patience)));
        ready!(stalled.as_mut().poll(cx));
        stalled.as_mut().reset(Instant::now() + patience);
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// Writes our refusal where the library wants to write its own, and reports its own as written.
    fn poll_refuse(&mut self, cx: &mut Context<'_>, own: &[u8]) -> Option<Poll<io::Result<usize>>> {
        if self.refusal.is_none() {
            let bytes = head_refused(library_refusal(own)?);
            self.refusal = Some(Refusal { bytes, written: 0 });
        }
        let mut refusal = self.refusal.take()?;
        while let Some(rest) = refusal.bytes.get(refusal.written..).filter(|rest| !rest.is_empty())
        {
            match self.patiently(cx, |tcp, cx| tcp.poll_write(cx, rest)) {
                Poll::Ready(Ok(0)) => {
                    return Some(Poll::Ready(Err(io::ErrorKind::WriteZero.into())));
                }
                Poll::Ready(Ok(bytes)) => refusal.written += bytes,
                Poll::Ready(Err(error)) => return Some(Poll::Ready(Err(error))),
                Poll::Pending => {
                    self.refusal = Some(refusal);
                    return Some(Poll::Pending);
                }
            }
        }
        Some(Poll::Ready(Ok(own.len())))
    }
}

/// The status of an answer that the HTTP library gives by itself when it cannot read a request's head. There is no
/// hook for it, but nothing of ours looks like it: a client error without a body and without `x-request-id`.
fn library_refusal(bytes: &[u8]) -> Option<StatusCode> {
    const LONGEST: usize = 256;
    if bytes.len() > LONGEST || !bytes.starts_with(b"HTTP/1.1 4") || !bytes.ends_with(b"\r\n\r\n") {
        return None;
    }
    let head = std::str::from_utf8(bytes).ok()?.to_ascii_lowercase();
    let bodiless = head.contains("\r\ncontent-length: 0\r\n");
    if !bodiless || head.contains("\r\nx-request-id:") || head.matches("\r\n\r\n").count() != 1 {
        return None;
    }
    let status = StatusCode::from_bytes(bytes.get(9..12)?).ok()?;
    matches!(
        status,
        StatusCode::BAD_REQUEST
            | StatusCode::URI_TOO_LONG
            | StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
    )
    .then_some(status)
}

impl AsyncRead for ClientStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_read(cx, buffer)
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let Some(refused) = self.poll_refuse(cx, bytes) {
            return refused;
        }
        self.patiently(cx, |tcp, cx| tcp.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let [only] = slices
            && let Some(refused) = self.poll_refuse(cx, only)
        {
            return refused;
        }
        self.patiently(cx, |tcp, cx| tcp.poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}
