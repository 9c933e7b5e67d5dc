//! The listening socket and the accept loop: limits the connections and drains them at shutdown.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::HttpConfig;
use super::address_slots::AddressSlots;
use super::connection::{self, RouterService};
use super::stream::{ClientStream, ConnectionSlot};
use crate::client::{PeerAccount, TrustedProxies};
use crate::metrics::{ConnectionMetrics, Metrics, MetricsError};
use crate::open_files;

/// Maximum number of connections that the kernel queues before they are accepted.
const MAX_ACCEPT_BACKLOG: u32 = 1024;
/// Maximum concurrent 503 responses to refused connections; the rest are closed without one.
const MAX_CONCURRENT_REFUSALS: usize = 64;
/// Pause after a failed accept. The usual cause is a lack of file descriptors: connections have to close first.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);
/// How long forcibly closed connections may take to end.
const FORCE_CLOSE_TIMEOUT: Duration = Duration::from_millis(250);

/// Why a server could not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Another process, often another instance of this one, listens on the address.
    #[error("{address} is in use by another process; stop it, or configure another address")]
    AddressInUse {
        /// The configured address.
        address: SocketAddr,
    },
    /// The system rejected the address.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// The configured address.
        address: SocketAddr,
        /// The system's error.
        source: io::Error,
    },
    /// The metrics of the server could not be registered.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
}

/// Listens on an address; port 0 picks a free port. Must be called inside a tokio runtime.
///
/// # Errors
/// If the address is in use, not local, or not allowed.
pub fn bind(address: SocketAddr) -> Result<TcpListener, ServeError> {
    let listen = || {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        // Lingering connections of a previous instance must not prevent the start of a new one.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(MAX_ACCEPT_BACKLOG)
    };
    listen().map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => ServeError::AddressInUse { address },
        _ => ServeError::Bind { address, source },
    })
}

/// Serves until `stop` is cancelled, then drains. `trusted_proxies` may open any number of connections.
///
/// Draining accepts no new connections and answers the requests in flight with `Connection: close`. It ends when all
/// are answered, or closes the remaining connections after `drain_timeout`. Streaming responses do not end by
/// themselves: their handlers must watch the same token.
///
/// # Errors
/// If the metrics of the server are already registered. Errors of single connections do not end the server.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    config: &HttpConfig,
    trusted_proxies: &TrustedProxies,
    metrics: &Metrics,
    stop: CancellationToken,
) -> Result<(), ServeError> {
    let max_connections =
        config.max_connections.min(open_files::connection_limit()).min(Semaphore::MAX_PERMITS);
    if max_connections < config.max_connections {
        tracing::warn!(
            max_connections,
            configured = config.max_connections,
            "the limit of open files allows fewer connections than http.max_connections"
        );
    }
    let server = Server {
        router: router.with_state(()),
        config: config.clone(),
        metrics: ConnectionMetrics::register(metrics)?,
        connection_permits: Arc::new(Semaphore::new(max_connections)),
        address_slots: AddressSlots::new(
            config.max_connections_per_address,
            trusted_proxies.clone(),
        ),
        trusted_proxies: Arc::new(trusted_proxies.clone()),
        refusal_permits: Arc::new(Semaphore::new(MAX_CONCURRENT_REFUSALS)),
        connections: TaskTracker::new(),
        stop,
        force_close: CancellationToken::new(),
    };
    server.accept(&listener).await;
    drop(listener);
    server.drain().await;
    Ok(())
}

struct Server {
    router: Router,
    config: HttpConfig,
    metrics: ConnectionMetrics,
    connection_permits: Arc<Semaphore>,
    address_slots: Arc<AddressSlots>,
    trusted_proxies: Arc<TrustedProxies>,
    refusal_permits: Arc<Semaphore>,
    connections: TaskTracker,
    stop: CancellationToken,
    force_close: CancellationToken,
}

impl Server {
    async fn accept(&self, listener: &TcpListener) {
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((tcp, peer)) => self.admit(tcp, peer),
                Err(error) if concerns_one_connection(&error) => {}
                Err(error) => {
                    self.metrics.failed_accepts.inc();
                    tracing::warn!(
                        %error,
                        retry_in_ms = ACCEPT_RETRY_DELAY.as_millis() as u64,
                        "failed to accept connections, retrying"
                    );
                    tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
                }
            }
        }
    }

    fn admit(&self, tcp: TcpStream, peer: SocketAddr) {
        let Ok(address_slot) = self.address_slots.occupy(peer.ip()) else {
            self.metrics.refused_by_address.inc();
            return self.refuse(tcp);
        };
        let Ok(permit) = Arc::clone(&self.connection_permits).try_acquire_owned() else {
            self.metrics.refused.inc();
            return self.refuse(tcp);
        };
        self.metrics.accepted.inc();
        // Responses are written whole, so Nagle's algorithm would only delay them. A failure is harmless.
        let _ = tcp.set_nodelay(true);
        let peer_account = PeerAccount::new(tcp.local_addr().ok(), peer);
        let tracked = self.connections.token();
        let slot = ConnectionSlot::occupy(&self.metrics.open, permit, address_slot, tracked);
        self.connections.spawn(connection::serve(
            connection::protocol(self.config.header_timeout),
            ClientStream::new(tcp, self.config.request_timeout, slot),
            RouterService {
                router: self.router.clone(),
                peer,
                peer_account,
                trusted_proxies: Arc::clone(&self.trusted_proxies),
            },
            // Child tokens, so that connections do not contend for one lock at every poll.
            self.stop.child_token(),
            self.force_close.child_token(),
        ));
    }

    /// Answers 503, unless too many others are being answered so.
    fn refuse(&self, tcp: TcpStream) {
        if let Ok(refusal_permit) = Arc::clone(&self.refusal_permits).try_acquire_owned() {
            self.connections.spawn(async move {
                connection::refuse(tcp).await;
                drop(refusal_permit);
            });
        }
    }

    async fn drain(self) {
        self.connections.close();
        if timeout(self.config.drain_timeout, self.connections.wait()).await.is_ok() {
            return;
        }
        let left = self.metrics.open.get();
        self.metrics.force_closed.inc_by(u64::try_from(left).unwrap_or_default());
        tracing::warn!(
            connections = left,
            "drain timeout expired, closing the remaining connections"
        );
        self.force_close.cancel();
        let _ = timeout(FORCE_CLOSE_TIMEOUT, self.connections.wait()).await;
    }
}

/// Whether an accept error concerns only the new connection, not the listening socket.
fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
    )
}
