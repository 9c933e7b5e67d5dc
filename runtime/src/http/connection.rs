//! One connection, from its being accepted to its end, and what is told to a client whose request has no head that
//! could reach a route.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::routing::future::RouteFuture;
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
use crate::problem::{MEDIA_TYPE, Problem, ProblemKind};
use crate::telemetry::ACCESS;

/// The largest head that is read.
const HEAD_BYTES: usize = 32 * 1024;
/// How much is read, or held to be written, at once.
const BUFFER_BYTES: usize = 64 * 1024;

/// How connections are spoken with.
pub(super) fn protocol(header_timeout: Duration) -> http1::Builder {
    let mut protocol = http1::Builder::new();
    protocol
        .timer(TokioTimer::new())
        .header_read_timeout(header_timeout)
        .max_header_size(HEAD_BYTES)
        .max_buf_size(BUFFER_BYTES);
    protocol
}

/// Hands requests to the router, with the client's address as `ConnectInfo<SocketAddr>`.
#[derive(Debug, Clone)]
pub(super) struct ToRouter {
    pub(super) router: Router,
    pub(super) peer: SocketAddr,
}

impl hyper::service::Service<Request<Incoming>> for ToRouter {
    type Response = axum::response::Response;
    type Error = Infallible;
    type Future = RouteFuture<Infallible>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let mut request = request.map(|body| match body.is_end_stream() {
            true => Body::empty(),
            false => Body::new(body),
        });
        request.extensions_mut().insert(ConnectInfo(self.peer));
        self.router.clone().call(request)
    }
}

/// Serves a connection until its client is done or, once `stop` is cancelled, until the request on it is answered;
/// at the latest until `cut` is cancelled.
pub(super) async fn run(
    protocol: http1::Builder,
    stream: ClientStream,
    service: ToRouter,
    stop: CancellationToken,
    cut: CancellationToken,
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
                () = cut.cancelled() => return,
            }
        }
    };
    // A client that goes away, or idles, is no event. One that began a request and never finished its head is told.
    if let Err(error) = outcome
        && error.is_timeout()
        && let Some(parts) = connection.into_parts()
        && !parts.read_buf.is_empty()
    {
        let refusal = head_refused(StatusCode::REQUEST_TIMEOUT);
        let _ = timeout(LINGER, farewell(parts.io.into_inner(), &refusal)).await;
    }
}

/// How long a refused client has to read what it is told.
const LINGER: Duration = Duration::from_secs(1);

/// Tells a client for which there is no place so, and closes.
pub(super) async fn refuse(tcp: TcpStream) {
    let refusal = head_refused(StatusCode::SERVICE_UNAVAILABLE);
    let _ = timeout(LINGER, farewell(tcp, &refusal)).await;
}

/// Writes the last words and waits until the client has closed too: closing with unread input would reset the
/// connection and could take the words with it.
async fn farewell(
    mut stream: impl AsyncReadExt + AsyncWriteExt + Unpin,
    words: &[u8],
) -> std::io::Result<()> {
    stream.write_all(words).await?;
    stream.shutdown().await?;
    let mut ignored = [0; 4096];
    while stream.read(&mut ignored).await? > 0 {}
    Ok(())
}

/// A whole response, head and body, to a request that no route sees; logged here, since no layer does.
pub(super) fn head_refused(status: StatusCode) -> Vec<u8> {
    let id = RequestId::unique();
    let kind = ProblemKind::from_status(status);
    let retry_after = match kind {
        ProblemKind::Unavailable => "retry-after: 1\r\n",
        _ => "",
    };
    let detail = match kind {
        ProblemKind::Unavailable => "too many connections are open; nothing was accepted",
        ProblemKind::RequestTimeout => "the headers did not arrive in time",
        _ => "the head of the request cannot be read",
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
