//! Serves one connection from accept to close. Also writes the errors that no route can answer.
//!
//! hyper answers a malformed request head by itself, with an empty 400, 414 or 431.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::response::Response;
use axum::routing::future::RouteFuture;
use futures_util::TryFutureExt;
use futures_util::future::MapOk;
use http::header::CONTENT_LENGTH;
use http::{Request, StatusCode};
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tower::Service;

use super::request_id::{RequestId, X_REQUEST_ID};
use super::stream::ClientStream;
use crate::client::{PeerAccount, TrustedProxies};
use crate::problem::{MEDIA_TYPE, Problem, ProblemKind};
use crate::telemetry::ACCESS;

/// Maximum size of a request head.
const MAX_HEAD_BYTES: usize = 32 * 1024;
/// Maximum size of a connection's read buffer, and of its write buffer.
const MAX_BUFFER_BYTES: usize = 64 * 1024;
/// How long a client has to read an error before its connection is closed.
const LINGER_TIMEOUT: Duration = Duration::from_secs(1);

/// Configures HTTP/1.1 for connections.
pub(super) fn protocol(header_timeout: Duration) -> http1::Builder {
    let mut protocol = http1::Builder::new();
    protocol
        .timer(TokioTimer::new())
        .header_read_timeout(header_timeout)
        .max_header_size(MAX_HEAD_BYTES)
        .max_buf_size(MAX_BUFFER_BYTES);
    protocol
}

/// Passes requests to the router, with the peer's address as `ConnectInfo<SocketAddr>`, its account if it is on this
/// machine, and the client as the trusted proxies name it.
#[derive(Debug, Clone)]
pub(super) struct RouterService {
    pub(super) router: Router,
    pub(super) peer: SocketAddr,
    pub(super) peer_account: PeerAccount,
    pub(super) trusted_proxies: Arc<TrustedProxies>,
}

impl hyper::service::Service<Request<Incoming>> for RouterService {
    type Response = Response;
    type Error = Infallible;
    type Future = MapOk<RouteFuture<Infallible>, fn(Response) -> Response>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let mut request = request.map(|body| match body.is_end_stream() {
            true => Body::empty(),
            false => Body::new(body),
        });
        request.extensions_mut().insert(ConnectInfo(self.peer));
        request.extensions_mut().insert(self.peer_account.clone());
        self.trusted_proxies.note_client_of(&mut request);
        let adapt: fn(Response) -> Response = without_length_of_nothing;
        self.router.clone().call(request).map_ok(adapt)
    }
}

/// Removes the length that the framework adds to a `304`: it would be that of the answer with a body (RFC 9110, 8.6).
fn without_length_of_nothing(mut response: Response) -> Response {
    if response.status() == StatusCode::NOT_MODIFIED {
        response.headers_mut().remove(CONTENT_LENGTH);
    }
    response
}

/// Serves a connection until the client closes it.
///
/// After `stop` is cancelled, the connection ends with its request in flight; after `force_close`, at once.
pub(super) async fn serve(
    protocol: http1::Builder,
    stream: ClientStream,
    service: RouterService,
    stop: CancellationToken,
    force_close: CancellationToken,
) {
    let io = TokioIo::new(stream);
    let mut connection = protocol.serve_connection(io, service).with_upgrades();
    let outcome = tokio::select! {
        biased;
        outcome = &mut connection => outcome,
        () = stop.cancelled() => {
            std::pin::Pin::new(&mut connection).graceful_shutdown();
            tokio::select! {
                outcome = &mut connection => outcome,
                () = force_close.cancelled() => return,
            }
        }
    };
    // A client that disconnects or idles gets no response. A client with an incomplete head gets a 408.
    if let Err(error) = outcome
        && error.is_timeout()
        && let Some(parts) = connection.into_parts()
        && !parts.read_buf.is_empty()
    {
        let response = unrouted_problem(StatusCode::REQUEST_TIMEOUT);
        let _ = timeout(LINGER_TIMEOUT, write_and_close(parts.io.into_inner(), &response)).await;
    }
}

/// Answers 503 to a client beyond the connection limit, and closes the connection.
pub(super) async fn refuse(tcp: TcpStream) {
    let response = unrouted_problem(StatusCode::SERVICE_UNAVAILABLE);
    let _ = timeout(LINGER_TIMEOUT, write_and_close(tcp, &response)).await;
}

/// Writes a response and waits until the client closes.
///
/// Closing with unread input would reset the connection, and the client could lose the response.
async fn write_and_close(
    mut stream: impl AsyncReadExt + AsyncWriteExt + Unpin,
    response: &[u8],
) -> std::io::Result<()> {
    stream.write_all(response).await?;
    stream.shutdown().await?;
    let mut ignored = [0; 4096];
    while stream.read(&mut ignored).await? > 0 {}
    Ok(())
}

/// Builds the response, head and body, to a request that reaches no route. Also writes its access log line.
fn unrouted_problem(status: StatusCode) -> Vec<u8> {
    let id = RequestId::generate();
    let kind = ProblemKind::from_status(status);
    let (detail, retry_after) = match kind {
        ProblemKind::Unavailable => {
            ("too many connections are open; nothing was accepted", "retry-after: 1\r\n")
        }
        _ => ("the headers did not arrive in time", ""),
    };
    let body = Problem::new(kind).detail(detail).instance(id.as_str()).to_json();
    tracing::info!(
        target: ACCESS,
        id = id.as_str(),
        method = "-",
        route = "none",
        status = status.as_u16(),
        bytes = body.len(),
    );
    let mut response = format!(
        "HTTP/1.1 {status}\r\ncontent-type: {MEDIA_TYPE}\r\ncontent-length: {}\r\n{X_REQUEST_ID}: {id}\r\n\
         cache-control: no-store\r\n{retry_after}connection: close\r\n\r\n",
        body.len()
    )
    .into_bytes();
    response.extend_from_slice(&body);
    response
}
