//! A client's socket: occupies one connection slot and limits how long the client may stop reading.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use prometheus::IntGauge;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep, sleep};
use tokio_util::task::task_tracker::TaskTrackerToken;

/// One of the limited number of open connections. Moves with the socket, also into an upgraded connection.
#[derive(Debug)]
pub(super) struct ConnectionSlot {
    open: IntGauge,
    _permit: OwnedSemaphorePermit,
    _tracked: TaskTrackerToken,
}

impl ConnectionSlot {
    pub(super) fn occupy(
        open: &IntGauge,
        permit: OwnedSemaphorePermit,
        tracked: TaskTrackerToken,
    ) -> Self {
        open.inc();
        Self { open: open.clone(), _permit: permit, _tracked: tracked }
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.open.dec();
    }
}

/// A client's socket.
#[derive(Debug)]
pub(super) struct ClientStream {
    tcp: TcpStream,
    /// How long a write may make no progress.
    write_timeout: Duration,
    write_deadline: Option<Pin<Box<Sleep>>>,
    _slot: ConnectionSlot,
}

impl ClientStream {
    pub(super) fn new(tcp: TcpStream, write_timeout: Duration, slot: ConnectionSlot) -> Self {
        Self { tcp, write_timeout, write_deadline: None, _slot: slot }
    }

    /// Polls a write, which fails once the client has read nothing for `write_timeout`.
    fn poll_write_with_timeout(
        &mut self,
        cx: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut TcpStream>, &mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(outcome) = write(Pin::new(&mut self.tcp), cx) {
            self.write_deadline = None;
            return Poll::Ready(outcome);
        }
        let write_timeout = self.write_timeout;
        let deadline = self.write_deadline.get_or_insert_with(|| Box::pin(sleep(write_timeout)));
        ready!(deadline.as_mut().poll(cx));
        deadline.as_mut().reset(Instant::now() + write_timeout);
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
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
        self.poll_write_with_timeout(cx, |tcp, cx| tcp.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_with_timeout(cx, |tcp, cx| tcp.poll_write_vectored(cx, slices))
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
