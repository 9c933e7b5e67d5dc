//! A proxy in front of the CQL server that can drop all requests to one range of the store.
//!
//! It reads requests as frames of the CQL protocol, version 4, and forwards responses as they are. A request belongs to
//! a range if it is bound to its generation and partition, one after the other, as all statements of the store are.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::watch;

use super::proxy_listener::{ProxyListener, connect, loopback};

/// Header of a frame: version, flags, stream, opcode, and the length of the body.
const HEADER_BYTES: usize = 9;
/// Largest body that the protocol allows.
const MAX_BODY_BYTES: usize = 256 << 20;
/// Version 4, as a request has it.
const VERSION: u8 = 4;

/// A range of the store: the rows of one partition of one generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreKey {
    /// The generation.
    pub generation: u32,
    /// The partition.
    pub partition: u32,
}

impl StoreKey {
    /// The two values as a request binds them.
    fn bound(self) -> [u8; 16] {
        let mut both = [0; 16];
        both[..8].copy_from_slice(&bound(self.generation));
        both[8..].copy_from_slice(&bound(self.partition));
        both
    }

    /// Whether a request is bound to the range.
    fn is_in(self, body: &[u8]) -> bool {
        let (generation, both) = (bound(self.generation), self.bound());
        let mut found = body.windows(both.len()).enumerate().filter(|(_, window)| *window == both);
        // After the generation, the pair is a partition and a bucket of people.
        found.any(|(at, _)| !body[..at].ends_with(&generation))
    }
}

/// An `int` as a request binds it: its length of four bytes, and the number.
fn bound(number: u32) -> [u8; 8] {
    (4_u64 << 32 | u64::from(number)).to_be_bytes()
}

/// A proxy in front of the CQL server. Dropping it closes its connections.
#[derive(Debug)]
pub struct CqlProxy {
    listener: ProxyListener,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    server: SocketAddr,
    range: watch::Sender<Option<StoreKey>>,
    dropped: AtomicU64,
}

impl CqlProxy {
    /// Listens on any loopback port and forwards to the server's port.
    ///
    /// # Errors
    /// When no port is free.
    pub async fn start(server: u16) -> Result<Self> {
        let shared = Arc::new(Shared {
            server: loopback(server),
            range: watch::Sender::new(None),
            dropped: AtomicU64::new(0),
        });
        let serving = Arc::clone(&shared);
        let serve = move |client| connection(client, Arc::clone(&serving));
        Ok(Self { listener: ProxyListener::start(0, serve).await?, shared })
    }

    /// The address, `host:port`.
    pub fn address(&self) -> String {
        self.listener.address()
    }

    /// Drops the requests to a range, or none.
    pub fn drop_requests_to(&self, range: Option<StoreKey>) {
        self.shared.range.send_replace(range);
    }

    /// Number of requests dropped so far.
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }
}

/// Forwards both directions until one of them ends.
async fn connection(mut client: TcpStream, shared: Arc<Shared>) {
    let Some(mut server) = connect(&client, shared.server).await else { return };
    let (client_reads, mut client_writes) = client.split();
    let (mut server_reads, server_writes) = server.split();
    tokio::select! {
        _ = forward_requests(client_reads, server_writes, &shared) => {}
        _ = tokio::io::copy(&mut server_reads, &mut client_writes) => {}
    }
}

/// Forwards the requests that are not to be dropped.
///
/// # Errors
/// When the connection ends, or a request is not a frame of version 4.
async fn forward_requests(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    shared: &Shared,
) -> Result<()> {
    loop {
        let mut header = [0; HEADER_BYTES];
        from.read_exact(&mut header).await?;
        let [version, .., a, b, c, d] = header;
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        ensure!(version == VERSION && length <= MAX_BODY_BYTES, "not a frame: {header:?}");
        let mut body = vec![0; length];
        from.read_exact(&mut body).await?;
        let range = *shared.range.borrow();
        if range.is_some_and(|range| range.is_in(&body)) {
            shared.dropped.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        to.write_all(&[&header[..], &body].concat()).await?;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::net::TcpListener;
    use tokio::time::timeout;

    use super::*;

    /// A request with an opcode and a body.
    fn frame(body: &[u8]) -> Vec<u8> {
        let mut frame = vec![VERSION, 0, 0, 1, 0x0a];
        frame.extend((body.len() as u32).to_be_bytes());
        frame.extend(body);
        frame
    }

    fn execute(generation: u32, partition: u32) -> Vec<u8> {
        let values = StoreKey { generation, partition }.bound();
        frame(&[&b"a statement's id"[..], &values, b"more values"].concat())
    }

    #[tokio::test]
    async fn only_requests_to_the_range_are_dropped_and_their_connection_goes_on() {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = CqlProxy::start(server.local_addr().unwrap().port()).await.unwrap();
        let mut client = TcpStream::connect(proxy.address()).await.unwrap();
        let (mut accepted, _) = server.accept().await.unwrap();
        proxy.drop_requests_to(Some(StoreKey { generation: 1, partition: 7 }));
        // The rows of people of partition 1, in bucket 7.
        let bucket = frame(&[bound(1), bound(1), bound(7)].concat());
        let passed = [execute(1, 6), execute(2, 7), bucket, frame(b"")];
        for request in
            [&passed[0], &execute(1, 7), &passed[1], &execute(1, 7), &passed[2], &passed[3]]
        {
            client.write_all(request).await.unwrap();
        }
        let mut arrived = vec![0; passed.concat().len()];
        timeout(Duration::from_secs(5), accepted.read_exact(&mut arrived)).await.unwrap().unwrap();
        assert_eq!(arrived, passed.concat());
        assert_eq!(proxy.dropped(), 2);

        accepted.write_all(b"any response").await.unwrap();
        let mut response = [0; 12];
        client.read_exact(&mut response).await.unwrap();
        assert_eq!(&response, b"any response");

        proxy.drop_requests_to(None);
        client.write_all(&execute(1, 7)).await.unwrap();
        let mut arrived = vec![0; execute(1, 7).len()];
        timeout(Duration::from_secs(5), accepted.read_exact(&mut arrived)).await.unwrap().unwrap();
        assert_eq!(arrived, execute(1, 7));
    }

    #[tokio::test]
    async fn a_connection_that_does_not_speak_version_4_is_closed() {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = CqlProxy::start(server.local_addr().unwrap().port()).await.unwrap();
        let mut client = TcpStream::connect(proxy.address()).await.unwrap();
        client.write_all(&[5; 32]).await.unwrap();
        let ended = timeout(Duration::from_secs(5), client.read(&mut [0; 1])).await.unwrap();
        assert!(matches!(ended, Ok(0) | Err(_)));
    }
}
