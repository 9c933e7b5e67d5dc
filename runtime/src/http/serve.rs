//! The listening socket and the accept loop: how many connections there are, and how they all end.

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
use super::connection::{self, ToRouter};
use super::stream::{ClientStream, Place};
use crate::metrics::{ConnectionMetrics, Metrics, MetricsError};

/// Connections that the system may hold ready for us.
const BACKLOG: u32 = 1024;
/// Refused clients that are told so at the same time; beyond it they are closed without a word.
const REFUSALS: usize = 64;
/// How long to wait when the system has no more descriptors: connections have to close first.
const NO_DESCRIPTORS: Duration = Duration::from_millis(100);
/// How long connections that are cut may take to notice.
const CUT: Duration = Duration::from_millis(250);

/// Why a server could not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Somebody else, often another instance of the same process, listens there.
    #[error("{address} is in use by another process; stop it, or configure another address")]
    AddressInUse {
        /// The address asked for.
        address: SocketAddr,
    },
    /// The system does not let us listen there.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// The address asked for.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The metrics of the server could not be registered.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
}

/// Listens on an address; port 0 takes any that is free. Must be called inside a tokio runtime.
///
/// # Errors
/// If the address is in use, or not ours, or not allowed.
pub fn bind(address: SocketAddr) -> Result<TcpListener, ServeError> {
    let listen = || {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        // Connections of a former instance that still linger must not keep a new one from starting.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    listen().map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => ServeError::AddressInUse { address },
        _ => ServeError::Bind { address, source },
    })
}

/// Serves until `stop` is cancelled: then takes no new connection, answers the requests that are in flight with
/// `Connection: close`, and returns when all are answered or `drain_timeout` is over, cutting what is left.
///
/// Streams do not end by themselves: their handlers have to watch the same token.
///
/// # Errors
/// If the metrics of the server are taken by something else. Errors of single connections are no errors of the server.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    config: &HttpConfig,
    metrics: &Metrics,
    stop: CancellationToken,
) -> Result<(), ServeError> {
    let server = Server {
        router: router.with_state(()),
        config: *config,
        metrics: ConnectionMetrics::register(metrics)?,
        places: Arc::new(Semaphore::new(config.max_connections.min(Semaphore::MAX_PERMITS))),
        refusals: Arc::new(Semaphore::new(REFUSALS)),
        connections: TaskTracker::new(),
        stop,
        cut: CancellationToken::new(),
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
    places: Arc<Semaphore>,
    refusals: Arc<Semaphore>,
    connections: TaskTracker,
    stop: CancellationToken,
    cut: CancellationToken,
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
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    self.metrics.failed_accepts.inc();
                    tracing::warn!(%error, "cannot accept connections for the moment");
                    tokio::time::sleep(NO_DESCRIPTORS).await;
                }
            }
        }
    }

    fn admit(&self, tcp: TcpStream, peer: SocketAddr) {
        let Ok(permit) = Arc::clone(&self.places).try_acquire_owned() else {
            self.metrics.refused.inc();
            if let Ok(telling) = Arc::clone(&self.refusals).try_acquire_owned() {
                self.connections.spawn(async move {
                    connection::refuse(tcp).await;
                    drop(telling);
                });
            }
            return;
        };
        self.metrics.accepted.inc();
        // An answer is written whole; waiting to fill a packet would only delay it. Not vital, should it fail.
        let _ = tcp.set_nodelay(true);
        let place = Place::take(&self.metrics.open, permit, self.connections.token());
        self.connections.spawn(connection::run(
            connection::protocol(self.config.header_timeout),
            ClientStream::new(tcp, self.config.request_timeout, place),
            ToRouter { router: self.router.clone(), peer },
            // Tokens of its own, so that connections do not contend for one lock at every step.
            self.stop.child_token(),
            self.cut.child_token(),
        ));
    }

    async fn drain(self) {
        self.connections.close();
        if timeout(self.config.drain_timeout, self.connections.wait()).await.is_ok() {
            return;
        }
        let left = self.metrics.open.get();
        self.metrics.cut.inc_by(u64::try_from(left).unwrap_or_default());
        tracing::warn!(connections = left, "the drain time is over: cutting what is left");
        self.cut.cancel();
        let _ = timeout(CUT, self.connections.wait()).await;
    }
}

/// Errors that concern the connection just accepted and not the listening socket.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
    )
}
