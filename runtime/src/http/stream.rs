//! A client's socket: occupies one connection slot and limits how slowly the client may read.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use prometheus::IntGauge;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Sleep, sleep};
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::address_slots::AddressSlot;

/// One of the limited number of open connections. Moves with the socket, also into an upgraded connection.
#[derive(Debug)]
pub(super) struct ConnectionSlot {
    open: IntGauge,
    _permit: OwnedSemaphorePermit,
    _address: AddressSlot,
    _tracked: TaskTrackerToken,
}

impl ConnectionSlot {
    pub(super) fn occupy(
        open: &IntGauge,
        permit: OwnedSemaphorePermit,
        address: AddressSlot,
        tracked: TaskTrackerToken,
    ) -> Self {
        open.inc();
        Self { open: open.clone(), _permit: permit, _address: address, _tracked: tracked }
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.open.dec();
    }
}

/// Bytes that a blocked client must read within the write timeout, unless less is left to write.
///
/// A limit on pauses alone would let a client hold a connection and its buffers for ever, one byte at a time.
const MIN_PROGRESS_BYTES: usize = 64 * 1024;

/// A client's socket.
#[derive(Debug)]
pub(super) struct ClientStream {
    tcp: TcpStream,
    deadline: WriteDeadline,
    _slot: ConnectionSlot,
}

/// The deadline of a client that does not read fast enough.
#[derive(Debug)]
struct WriteDeadline {
    timeout: Duration,
    /// Set while a write is blocked, and until the client has made enough progress since.
    expiry: Option<Pin<Box<Sleep>>>,
    written_bytes: usize,
}

impl WriteDeadline {
    fn new(timeout: Duration) -> Self {
        Self { timeout, expiry: None, written_bytes: 0 }
    }

    /// Notes that bytes were written.
    fn note_written(&mut self, bytes: usize) {
        self.written_bytes = self.written_bytes.saturating_add(bytes);
        if self.written_bytes >= MIN_PROGRESS_BYTES {
            self.clear();
        }
    }

    /// Clears the deadline, because nothing is left to write or enough was written.
    fn clear(&mut self) {
        self.expiry = None;
        self.written_bytes = 0;
    }

    /// Completes once the client is too slow. Called while a write is blocked.
    fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let expiry = self.expiry.get_or_insert_with(|| {
            self.written_bytes = 0;
            Box::pin(sleep(self.timeout))
        });
        let expired = expiry.as_mut().poll(cx);
        if expired.is_ready() {
            self.clear();
        }
        expired
    }
}

impl ClientStream {
    pub(super) fn new(tcp: TcpStream, write_timeout: Duration, slot: ConnectionSlot) -> Self {
        Self { tcp, deadline: WriteDeadline::new(write_timeout), _slot: slot }
    }

    /// Polls a write, which fails once the client reads too slowly.
    fn poll_write_with_deadline(
        &mut self,
        cx: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut TcpStream>, &mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match write(Pin::new(&mut self.tcp), cx) {
            Poll::Ready(Ok(bytes)) => {
                self.deadline.note_written(bytes);
                Poll::Ready(Ok(bytes))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                self.deadline.poll_expired(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
            }
        }
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
        self.poll_write_with_deadline(cx, |tcp, cx| tcp.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_with_deadline(cx, |tcp, cx| tcp.poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The server flushes once it has written all that it had.
        self.deadline.clear();
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::time::{Instant, timeout};

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(30);

    /// Reads some bytes every second; returns when the deadline ended that.
    async fn read_every_second(bytes: usize) -> Option<Duration> {
        let (started, mut deadline) = (Instant::now(), WriteDeadline::new(TIMEOUT));
        for _ in 0..600 {
            let blocked = poll_fn(|cx| deadline.poll_expired(cx));
            if timeout(Duration::from_secs(1), blocked).await.is_ok() {
                return Some(started.elapsed());
            }
            deadline.note_written(bytes);
        }
        None
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_drips_is_ended_at_the_timeout_and_a_slow_one_is_not() {
        for bytes in [0, 1, 2_000] {
            assert_eq!(read_every_second(bytes).await.map(|took| took.as_secs()), Some(30));
        }
        assert_eq!(read_every_second(3_000).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_response_that_was_written_whole_does_not_count_against_the_next() {
        let mut deadline = WriteDeadline::new(TIMEOUT);
        for _ in 0..100 {
            let blocked = poll_fn(|cx| deadline.poll_expired(cx));
            assert!(timeout(Duration::from_secs(20), blocked).await.is_err());
            deadline.note_written(10);
            deadline.clear();
        }
    }
}
