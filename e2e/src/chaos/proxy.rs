//! A TCP proxy that makes trouble: what stands between a service and a server, and can fail as a network fails.
//!
//! It knows nothing of the protocols that pass through it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep, sleep_until};

use crate::wait::eventually;

const GONE: Duration = Duration::from_secs(5);
/// Bytes read at once.
const CHUNK: usize = 16 * 1024;
/// Chunks that may wait for their time in each direction.
const WAITING: usize = 1_024;
/// Slow bytes come in slices of this size, each after a pause.
const SLICE: usize = 96;
const SLICE_PAUSE: Duration = Duration::from_millis(1);

/// What is wrong with the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// Connections are closed, and new ones end at once.
    Cut,
    /// Connections are reset, and new ones as soon as something is said.
    Reset,
    /// Whatever is sent disappears, and nobody is told. A connection that has lost bytes loses all that follow, even
    /// once the network is well again, as behind a firewall that has forgotten it.
    Swallow,
    /// As [`Trouble::Swallow`], for the server's replies only: what was asked for is done.
    SwallowReplies,
    /// The server's replies come so much later.
    Late(Duration),
    /// Bytes come in small slices, slowly.
    Slow,
}

/// A proxy in front of one server. It ends when dropped, and its connections with it.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    server: SocketAddr,
    trouble: watch::Sender<Option<Trouble>>,
    /// Connections ended, and chunks that did not pass as they should.
    harm: AtomicU64,
}

impl Proxy {
    /// Listens on a port of the loopback, any if it is 0, for a server on another.
    ///
    /// # Errors
    /// When the port is taken.
    pub async fn start(port: u16, server: u16) -> Result<Self> {
        // A proxy that was there before may need a moment to be gone.
        let listener = eventually("the proxy listens", GONE, async || {
            TcpListener::bind(("127.0.0.1", port)).await.with_context(|| format!("port {port}"))
        })
        .await?;
        let shared = Arc::new(Shared {
            server: SocketAddr::from(([127, 0, 0, 1], server)),
            trouble: watch::Sender::new(None),
            harm: AtomicU64::new(0),
        });
        let port = listener.local_addr()?.port();
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self { port, shared, accepting })
    }

    /// Where it listens, `host:port`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Makes trouble from now on, or ends it.
    pub fn set(&self, trouble: Option<Trouble>) {
        self.shared.trouble.send_replace(trouble);
    }

    /// How often trouble was felt so far.
    pub fn harm(&self) -> u64 {
        self.shared.harm.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Shared {
    fn now(&self) -> Option<Trouble> {
        *self.trouble.borrow()
    }

    fn harmed(&self) {
        self.harm.fetch_add(1, Ordering::Relaxed);
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok(_) if shared.now() == Some(Trouble::Cut) => shared.harmed(),
            Ok((client, _)) => {
                connections.spawn(connection(client, Arc::clone(&shared)));
            }
            // Out of descriptors; some will be free again.
            Err(_) => sleep(Duration::from_millis(10)).await,
        }
    }
}

async fn connection(mut client: TcpStream, shared: Arc<Shared>) {
    if shared.now() == Some(Trouble::Reset) {
        let _ = client.read(&mut [0; 64]).await;
        let _ = client.set_zero_linger();
        shared.harmed();
        return;
    }
    let Ok(mut server) = TcpStream::connect(shared.server).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let reset = {
        let (client_reads, client_writes) = client.split();
        let (server_reads, server_writes) = server.split();
        tokio::select! {
            () = pass(client_reads, server_writes, false, &shared) => false,
            () = pass(server_reads, client_writes, true, &shared) => false,
            reset = broken(&shared) => reset,
        }
    };
    if reset {
        let _ = (client.set_zero_linger(), server.set_zero_linger());
    }
}

/// Waits until the connection is to end, and says whether by a reset.
async fn broken(shared: &Shared) -> bool {
    let mut changes = shared.trouble.subscribe();
    loop {
        let trouble = *changes.borrow_and_update();
        if let Some(Trouble::Cut | Trouble::Reset) = trouble {
            shared.harmed();
            return trouble == Some(Trouble::Reset);
        }
        if changes.changed().await.is_err() {
            return false;
        }
    }
}

/// Passes one direction on until it ends: a chunk is read, given the time at which it is due, and written then.
async fn pass(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, replies: bool, shared: &Shared) {
    let (due, mut waiting) = mpsc::channel::<(Instant, Vec<u8>)>(WAITING);
    let reading = async {
        let mut lost = false;
        let mut chunk = vec![0; CHUNK];
        while let Ok(length @ 1..) = from.read(&mut chunk).await {
            let trouble = shared.now();
            lost |= trouble == Some(Trouble::Swallow)
                || (trouble == Some(Trouble::SwallowReplies) && replies);
            if lost {
                shared.harmed();
                continue;
            }
            let delay = match trouble {
                Some(Trouble::Late(delay)) if replies => delay,
                _ => Duration::ZERO,
            };
            if !delay.is_zero() {
                shared.harmed();
            }
            let bytes = chunk.get(..length).unwrap_or_default().to_vec();
            if due.send((Instant::now() + delay, bytes)).await.is_err() {
                break;
            }
        }
    };
    let writing = async {
        while let Some((when, bytes)) = waiting.recv().await {
            sleep_until(when).await;
            if write(&mut to, &bytes, shared).await.is_err() {
                break;
            }
        }
    };
    tokio::select! {
        () = reading => {}
        () = writing => {}
    }
}

async fn write(to: &mut WriteHalf<'_>, bytes: &[u8], shared: &Shared) -> std::io::Result<()> {
    let mut rest = bytes;
    while shared.now() == Some(Trouble::Slow) && rest.len() > SLICE {
        let (slice, after) = rest.split_at(SLICE);
        to.write_all(slice).await?;
        shared.harmed();
        sleep(SLICE_PAUSE).await;
        rest = after;
    }
    to.write_all(rest).await
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    const SOON: Duration = Duration::from_secs(5);
    const NEVER: Duration = Duration::from_millis(150);

    /// A server that repeats what it hears, behind a proxy, and a client of it.
    async fn behind_a_proxy() -> (Proxy, TcpStream) {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = server.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut heard, _)) = server.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = heard.split();
                    tokio::io::copy(&mut from, &mut to).await
                });
            }
        });
        let proxy = Proxy::start(0, port).await.unwrap();
        let client = TcpStream::connect(proxy.address()).await.unwrap();
        (proxy, client)
    }

    async fn echo(client: &mut TcpStream, bytes: &[u8]) -> std::io::Result<Vec<u8>> {
        client.write_all(bytes).await?;
        let mut back = vec![0; bytes.len()];
        client.read_exact(&mut back).await?;
        Ok(back)
    }

    #[tokio::test]
    async fn without_trouble_and_slowly_and_late_the_same_bytes_come_back() {
        let (proxy, mut client) = behind_a_proxy().await;
        let bytes: Vec<u8> = (0..40_000_u32).map(|number| number as u8).collect();
        assert_eq!(echo(&mut client, &bytes).await.unwrap(), bytes);
        assert_eq!(proxy.harm(), 0);
        for trouble in [Trouble::Slow, Trouble::Late(Duration::from_millis(50))] {
            proxy.set(Some(trouble));
            let (before, began) = (proxy.harm(), Instant::now());
            assert_eq!(echo(&mut client, &bytes).await.unwrap(), bytes);
            assert!(proxy.harm() > before && began.elapsed() >= Duration::from_millis(50));
        }
    }

    #[tokio::test]
    async fn a_cut_and_a_reset_end_the_connection_and_later_ones_are_well() {
        for trouble in [Trouble::Cut, Trouble::Reset] {
            let (proxy, mut client) = behind_a_proxy().await;
            assert_eq!(echo(&mut client, b"before").await.unwrap(), b"before");
            proxy.set(Some(trouble));
            let ended = timeout(SOON, client.read(&mut [0; 8])).await.unwrap();
            assert_eq!(ended.is_err(), trouble == Trouble::Reset);
            let mut during = TcpStream::connect(proxy.address()).await.unwrap();
            assert!(timeout(SOON, echo(&mut during, b"during")).await.unwrap().is_err());
            proxy.set(None);
            let mut after = TcpStream::connect(proxy.address()).await.unwrap();
            assert_eq!(echo(&mut after, b"after").await.unwrap(), b"after");
        }
    }

    #[tokio::test]
    async fn a_connection_that_has_lost_bytes_stays_silent_and_later_ones_are_well() {
        for trouble in [Trouble::Swallow, Trouble::SwallowReplies] {
            let (proxy, mut client) = behind_a_proxy().await;
            assert_eq!(echo(&mut client, b"before").await.unwrap(), b"before");
            proxy.set(Some(trouble));
            assert!(timeout(NEVER, echo(&mut client, b"lost")).await.is_err());
            assert!(proxy.harm() > 0);
            proxy.set(None);
            assert!(timeout(NEVER, echo(&mut client, b"still lost")).await.is_err());
            let mut after = TcpStream::connect(proxy.address()).await.unwrap();
            assert_eq!(echo(&mut after, b"after").await.unwrap(), b"after");
        }
    }
}
