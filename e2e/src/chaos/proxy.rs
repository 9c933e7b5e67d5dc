//! A TCP proxy that injects network faults between a service and a server. It is independent of the protocol.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};

use super::proxy_listener::{ProxyListener, connect, loopback};

/// Maximum bytes per read.
const CHUNK: usize = 16 * 1024;
/// Maximum delayed chunks in each direction.
const MAX_DELAYED_CHUNKS: usize = 1_024;
/// Size of the slices of slow traffic, which are sent with a pause after each.
const SLICE: usize = 96;
const SLICE_PAUSE: Duration = Duration::from_millis(1);

/// A network fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetworkFault {
    /// Connections are closed, new ones immediately.
    Cut,
    /// Connections are reset, new ones at their first bytes.
    Reset,
    /// All bytes are dropped silently. A connection that has lost bytes drops all later ones too, even after the fault,
    /// as behind a firewall that forgot the connection.
    Swallow,
    /// Drops only the server's replies, so requests take effect.
    SwallowReplies,
    /// The server's replies are delayed.
    Late(Duration),
    /// Bytes arrive slowly, in small slices.
    Slow,
}

/// A proxy in front of one server. Dropping it closes its connections.
#[derive(Debug)]
pub struct Proxy {
    listener: ProxyListener,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    server: SocketAddr,
    fault: watch::Sender<Option<NetworkFault>>,
    /// Connections and chunks that a fault affected.
    affected: AtomicU64,
}

impl Proxy {
    /// Listens on a loopback port (0 for any) and forwards to the server's port.
    ///
    /// # Errors
    /// When the port is in use.
    pub async fn start(port: u16, server: u16) -> Result<Self> {
        let shared = Arc::new(Shared {
            server: loopback(server),
            fault: watch::Sender::new(None),
            affected: AtomicU64::new(0),
        });
        let serving = Arc::clone(&shared);
        let serve = move |client| connection(client, Arc::clone(&serving));
        Ok(Self { listener: ProxyListener::start(port, serve).await?, shared })
    }

    /// The address, `host:port`.
    pub fn address(&self) -> String {
        self.listener.address()
    }

    /// Starts a fault, or ends the current one.
    pub fn set(&self, fault: Option<NetworkFault>) {
        self.shared.fault.send_replace(fault);
    }

    /// Number of connections and chunks affected so far.
    pub fn affected(&self) -> u64 {
        self.shared.affected.load(Ordering::Relaxed)
    }
}

impl Shared {
    fn current_fault(&self) -> Option<NetworkFault> {
        *self.fault.borrow()
    }

    fn count_affected(&self) {
        self.affected.fetch_add(1, Ordering::Relaxed);
    }
}

async fn connection(mut client: TcpStream, shared: Arc<Shared>) {
    if shared.current_fault() == Some(NetworkFault::Cut) {
        return shared.count_affected();
    }
    if shared.current_fault() == Some(NetworkFault::Reset) {
        let _ = client.read(&mut [0; 64]).await;
        let _ = client.set_zero_linger();
        shared.count_affected();
        return;
    }
    let Some(mut server) = connect(&client, shared.server).await else { return };
    let reset = {
        let (client_reads, client_writes) = client.split();
        let (server_reads, server_writes) = server.split();
        tokio::select! {
            () = forward(client_reads, server_writes, false, &shared) => false,
            () = forward(server_reads, client_writes, true, &shared) => false,
            reset = wait_until_broken(&shared) => reset,
        }
    };
    if reset {
        let _ = (client.set_zero_linger(), server.set_zero_linger());
    }
}

/// Waits until a fault ends the connection. Returns whether by a reset.
async fn wait_until_broken(shared: &Shared) -> bool {
    let mut changes = shared.fault.subscribe();
    loop {
        let fault = *changes.borrow_and_update();
        if let Some(NetworkFault::Cut | NetworkFault::Reset) = fault {
            shared.count_affected();
            return fault == Some(NetworkFault::Reset);
        }
        if changes.changed().await.is_err() {
            return false;
        }
    }
}

/// Forwards one direction until it ends. Each chunk is written when it is due.
async fn forward(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, replies: bool, shared: &Shared) {
    let (delayed, mut due) = mpsc::channel::<(Instant, Vec<u8>)>(MAX_DELAYED_CHUNKS);
    let reading = async {
        let mut lost = false;
        let mut chunk = vec![0; CHUNK];
        while let Ok(length @ 1..) = from.read(&mut chunk).await {
            let fault = shared.current_fault();
            lost |= fault == Some(NetworkFault::Swallow)
                || (fault == Some(NetworkFault::SwallowReplies) && replies);
            if lost {
                shared.count_affected();
                continue;
            }
            let delay = match fault {
                Some(NetworkFault::Late(delay)) if replies => delay,
                _ => Duration::ZERO,
            };
            if !delay.is_zero() {
                shared.count_affected();
            }
            let bytes = chunk.get(..length).unwrap_or_default().to_vec();
            if delayed.send((Instant::now() + delay, bytes)).await.is_err() {
                break;
            }
        }
    };
    let writing = async {
        while let Some((when, bytes)) = due.recv().await {
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
    while shared.current_fault() == Some(NetworkFault::Slow) && rest.len() > SLICE {
        let (slice, after) = rest.split_at(SLICE);
        to.write_all(slice).await?;
        shared.count_affected();
        sleep(SLICE_PAUSE).await;
        rest = after;
    }
    to.write_all(rest).await
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;
    use tokio::time::timeout;

    use super::*;

    const SOON: Duration = Duration::from_secs(5);
    const NEVER: Duration = Duration::from_millis(150);

    /// Starts an echo server behind a proxy, and connects a client.
    async fn start_echo_server() -> (Proxy, TcpStream) {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = server.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut connection, _)) = server.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = connection.split();
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
    async fn slow_and_delayed_traffic_arrives_unchanged() {
        let (proxy, mut client) = start_echo_server().await;
        let bytes: Vec<u8> = (0..40_000_u32).map(|number| number as u8).collect();
        assert_eq!(echo(&mut client, &bytes).await.unwrap(), bytes);
        assert_eq!(proxy.affected(), 0);
        for fault in [NetworkFault::Slow, NetworkFault::Late(Duration::from_millis(50))] {
            proxy.set(Some(fault));
            let (before, started) = (proxy.affected(), Instant::now());
            assert_eq!(echo(&mut client, &bytes).await.unwrap(), bytes);
            assert!(proxy.affected() > before && started.elapsed() >= Duration::from_millis(50));
        }
    }

    #[tokio::test]
    async fn cut_and_reset_end_connections_until_the_fault_ends() {
        for fault in [NetworkFault::Cut, NetworkFault::Reset] {
            let (proxy, mut client) = start_echo_server().await;
            assert_eq!(echo(&mut client, b"before").await.unwrap(), b"before");
            proxy.set(Some(fault));
            let ended = timeout(SOON, client.read(&mut [0; 8])).await.unwrap();
            assert_eq!(ended.is_err(), fault == NetworkFault::Reset);
            let mut during = TcpStream::connect(proxy.address()).await.unwrap();
            assert!(timeout(SOON, echo(&mut during, b"during")).await.unwrap().is_err());
            proxy.set(None);
            let mut after = TcpStream::connect(proxy.address()).await.unwrap();
            assert_eq!(echo(&mut after, b"after").await.unwrap(), b"after");
        }
    }

    #[tokio::test]
    async fn a_connection_that_lost_bytes_stays_silent_and_new_ones_work() {
        for fault in [NetworkFault::Swallow, NetworkFault::SwallowReplies] {
            let (proxy, mut client) = start_echo_server().await;
            assert_eq!(echo(&mut client, b"before").await.unwrap(), b"before");
            proxy.set(Some(fault));
            assert!(timeout(NEVER, echo(&mut client, b"lost")).await.is_err());
            assert!(proxy.affected() > 0);
            proxy.set(None);
            assert!(timeout(NEVER, echo(&mut client, b"still lost")).await.is_err());
            let mut after = TcpStream::connect(proxy.address()).await.unwrap();
            assert_eq!(echo(&mut after, b"after").await.unwrap(), b"after");
        }
    }
}
