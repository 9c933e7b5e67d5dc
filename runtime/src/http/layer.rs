//! The layer around every route: request id, metrics, access log, limits, panics, problems.
//!
//! It is one hand-written service and future: a request served from memory costs a few atomic additions and no
//! allocations beyond the framework's own.

use std::convert::Infallible;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::{DefaultBodyLimit, MatchedPath, Request};
use axum::response::{IntoResponse, Response};
use http::header::{ACCEPT_ENCODING, CONNECTION, CONTENT_ENCODING, EXPECT, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, StatusCode};
use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep, sleep_until};
use tower::{Layer, Service};

use super::HttpConfig;
use super::body_memory::{BodyMemory, MemoryFull, Reservation};
use super::cors::{ClientOrigins, Grant};
use super::error_response::{self, UNMATCHED};
use super::exchange::Exchange;
use super::host::check_host;
use super::request_body::{self, BodyMonitor, BodyState};
use super::request_id::{RequestId, X_REQUEST_ID};
use super::response_body::{self, ChargedBody};
use super::transfer_coding::check_transfer_coding;
use crate::client::{Client, ClientNetwork};
use crate::limits::copy_limit_headers;
use crate::metrics::{RequestMetrics, RouteMetrics};
use crate::problem::{Problem, ProblemKind};

/// `Retry-After` of an overloaded or slow server.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How long a handler may take to respond after its body was late.
const LATE_BODY_TIMEOUT: Duration = Duration::from_secs(1);

/// Wraps each route when the router is built.
#[derive(Debug, Clone)]
pub(super) struct RequestLayer {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    metrics: Arc<RequestMetrics>,
    request_timeout: Duration,
    max_body_bytes: usize,
    body_memory: Arc<BodyMemory>,
    client_origins: ClientOrigins,
}

impl RequestLayer {
    pub(super) fn new(metrics: RequestMetrics, config: &HttpConfig) -> Self {
        Self {
            shared: Arc::new(Shared {
                metrics: Arc::new(metrics),
                request_timeout: config.request_timeout,
                max_body_bytes: config.max_body_bytes,
                body_memory: BodyMemory::new(
                    config.max_buffered_bytes,
                    request_body::largest_cost_bytes(config.max_body_bytes),
                ),
                client_origins: config.cors_origins.clone(),
            }),
        }
    }
}

impl<S> Layer<S> for RequestLayer {
    type Service = RequestService<S>;

    fn layer(&self, inner: S) -> RequestService<S> {
        RequestService { inner, shared: Arc::clone(&self.shared), route: Arc::default() }
    }
}

/// A wrapped route.
#[derive(Debug, Clone)]
pub(super) struct RequestService<S> {
    inner: S,
    shared: Arc<Shared>,
    /// The instance's route, or `unmatched`. Known from its first request on.
    route: Arc<OnceLock<Arc<RouteMetrics>>>,
}

impl<S> RequestService<S> {
    fn begin(&self, request: &Request) -> Exchange {
        let route = self.route.get_or_init(|| {
            let matched = request.extensions().get::<MatchedPath>();
            let name = matched.map_or(UNMATCHED, MatchedPath::as_str);
            Arc::new(self.shared.metrics.route(name))
        });
        Exchange::begin(
            RequestId::from_headers(request.headers()),
            request.method(),
            Arc::clone(route),
            Arc::clone(&self.shared.metrics),
        )
    }

    /// Prepares a request for its handler. The error is the response to a request that does not reach it.
    fn admit(
        &self,
        grant: &Grant,
        request: &mut Request,
        client: ClientNetwork,
    ) -> Result<Option<Arc<BodyMonitor>>, Box<Response>> {
        let refuse = |problem| Box::new(closing_response(Some(problem)));
        check_host(request).map_err(refuse)?;
        check_transfer_coding(request.headers()).map_err(refuse)?;
        if let Some(preflight) = grant.preflight(request) {
            return Err(Box::new(preflight));
        }
        self.limit_body(request, client).map_err(refuse)
    }

    /// Limits the body of a request that has one. Replaces the framework's own limit.
    fn limit_body(
        &self,
        request: &mut Request,
        client: ClientNetwork,
    ) -> Result<Option<Arc<BodyMonitor>>, Problem> {
        let body = request.body();
        if body.is_end_stream() {
            return Ok(None);
        }
        if request.headers().get_all(CONTENT_ENCODING).iter().any(|coding| coding != "identity") {
            return Err(encoded());
        }
        let max_bytes = self.shared.max_body_bytes;
        // A moderately oversized body is read and discarded, so that the client sees the response.
        let readable = max_bytes.saturating_add(request_body::MAX_DISCARDED_BYTES);
        if usize::try_from(body.size_hint().lower()).is_ok_and(|bytes| bytes <= readable) {
            let body = std::mem::replace(request.body_mut(), Body::empty());
            let reservation = Reservation::empty(&self.shared.body_memory, client);
            let (body, monitor) = request_body::limit(body, max_bytes, reservation);
            *request.body_mut() = body;
            DefaultBodyLimit::disable().apply(request);
            Ok(Some(monitor))
        } else {
            Err(too_large(max_bytes))
        }
    }
}

impl<S> Service<Request> for RequestService<S>
where
    S: Service<Request, Response = Response, Error = Infallible>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = RequestFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let exchange = self.begin(&request);
        request.extensions_mut().insert(exchange.id);
        // Noted by the connection.
        let client = request.extensions().get().map_or(ClientNetwork::UNKNOWN, Client::network);
        let grant = Grant::of(&request, &self.shared.client_origins);
        let expects_continue = request.headers().contains_key(EXPECT);
        let (work, body) = match self.admit(&grant, &mut request, client) {
            Ok(body) => (Work::Running { inner: self.inner.call(request) }, body),
            Err(response) => (Work::Answered { response: Some(response) }, None),
        };
        let shared = Arc::clone(&self.shared);
        RequestFuture {
            work,
            deadline: None,
            body,
            client,
            grant,
            expects_continue,
            exchange,
            shared,
        }
    }
}

pin_project! {
    /// The handling of one request.
    pub(super) struct RequestFuture<F> {
        #[pin]
        work: Work<F>,
        // Set only when the handler does not finish at once; most requests need no timer.
        #[pin]
        deadline: Option<Sleep>,
        body: Option<Arc<BodyMonitor>>,
        client: ClientNetwork,
        grant: Grant,
        // The client sends its body only once it is read.
        expects_continue: bool,
        exchange: Exchange,
        shared: Arc<Shared>,
    }
}

pin_project! {
    #[project = WorkProjection]
    enum Work<F> {
        Running { #[pin] inner: F },
        // Without the handler.
        Answered { response: Option<Box<Response>> },
    }
}

impl<F> Future for RequestFuture<F>
where
    F: Future<Output = Result<Response, Infallible>>,
{
    type Output = Result<Response, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let body_state = || this.body.as_ref().map_or(BodyState::Idle, |body| body.state());
        let response = match this.work.project() {
            WorkProjection::Answered { response } => {
                response.take().map_or_else(|| closing_response(None), |response| *response)
            }
            WorkProjection::Running { inner } => {
                let mut inner = inner;
                loop {
                    // After a panic the handler's future is not polled again, so its broken state is never seen.
                    match catch_unwind(AssertUnwindSafe(|| inner.as_mut().poll(cx))) {
                        Ok(Poll::Ready(Ok(response))) => break response,
                        Ok(Poll::Pending) => {
                            let end = this.exchange.started + this.shared.request_timeout;
                            if this.deadline.is_none() {
                                this.deadline.set(Some(sleep_until(end.into())));
                            }
                            let deadline = this.deadline.as_mut().as_pin_mut();
                            if deadline.is_none_or(|deadline| deadline.poll(cx).is_pending()) {
                                return Poll::Pending;
                            }
                            // A handler that learns of a late body still charges the request to its limits.
                            if !this.body.as_ref().is_some_and(|body| body.end_if_waiting()) {
                                break closing_response(Some(timed_out(body_state())));
                            }
                            this.deadline.set(Some(sleep(LATE_BODY_TIMEOUT)));
                        }
                        Err(_) => {
                            this.exchange.record_panic();
                            break Problem::new(ProblemKind::Internal).into_response();
                        }
                    }
                }
            }
        };
        // Handlers see an oversized or late body as a broken one; the client gets the actual cause.
        let cause = match body_state() {
            BodyState::TooLarge => Some(too_large(this.shared.max_body_bytes)),
            BodyState::OutOfMemory => Some(out_of_memory()),
            BodyState::ClientOutOfMemory => Some(client_out_of_memory()),
            BodyState::Late => Some(timed_out(BodyState::Late)),
            BodyState::Idle | BodyState::Waiting => None,
        };
        let mut response = match cause {
            Some(cause) => {
                let mut replaced = closing_response(Some(cause));
                copy_limit_headers(response.headers(), replaced.headers_mut());
                replaced
            }
            None => charge(response, &this.shared.body_memory, *this.client),
        };
        let exchange = this.exchange;
        // Closing with unread input would reset the connection, and the client could lose the response.
        if let Some(rest) = this.body.as_ref().and_then(|body| body.take_unread())
            && !*this.expects_continue
        {
            let deadline = exchange.started + this.shared.request_timeout;
            tokio::spawn(request_body::discard(rest, deadline.into()));
        }
        if response.status() == StatusCode::METHOD_NOT_ALLOWED && exchange.is_options() {
            response = allowed_methods();
        }
        if response.status().is_client_error() || response.status().is_server_error() {
            response = error_response::to_problem(response, &exchange.id, exchange.route());
        }
        let headers = response.headers_mut();
        headers.insert(X_REQUEST_ID, exchange.id.header_value());
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        this.grant.add_to(headers);
        exchange.record_response(&response);
        let response =
            response.map(|response| response_body::keep_reservation(response, this.body));
        Poll::Ready(Ok(response))
    }
}

/// Charges the body of a response that is marked for it.
fn charge(mut response: Response, memory: &Arc<BodyMemory>, client: ClientNetwork) -> Response {
    if response.extensions_mut().remove::<ChargedBody>().is_none() {
        return response;
    }
    let (parts, body) = response.into_parts();
    let (kind, detail) = match response_body::charge(body, memory, client) {
        Ok(body) => return Response::from_parts(parts, body),
        Err(MemoryFull::Shared) => {
            (ProblemKind::Unavailable, "the responses that are being read are too large together")
        }
        // Not 503, which a gateway tries again at another process.
        Err(MemoryFull::OfClient) => (
            ProblemKind::RateLimited,
            "the responses that are being read by this address are too large together",
        ),
    };
    Problem::new(kind).detail(detail).retry_after(RETRY_AFTER).into_response()
}

/// Responds to a request whose body was not read to its end. The connection must be closed then.
fn closing_response(problem: Option<Problem>) -> Response {
    problem
        .unwrap_or_else(|| Problem::new(ProblemKind::Internal))
        .header(CONNECTION, HeaderValue::from_static("close"))
        .into_response()
}

/// Answers `OPTIONS`. The framework adds `Allow`, as to every method that a route does not have.
fn allowed_methods() -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

/// Refuses a compressed body: its size is not known before it is unpacked.
fn encoded() -> Problem {
    Problem::new(ProblemKind::UnsupportedMediaType)
        .detail("a body must not be compressed; nothing was accepted")
        .header(ACCEPT_ENCODING, HeaderValue::from_static("identity"))
}

fn too_large(max_bytes: usize) -> Problem {
    Problem::new(ProblemKind::ContentTooLarge)
        .detail(format!("a body must have at most {max_bytes} bytes; nothing was accepted"))
}

fn out_of_memory() -> Problem {
    Problem::new(ProblemKind::Unavailable)
        .detail("the bodies of all requests together are too large; nothing was accepted")
        .retry_after(RETRY_AFTER)
}

/// Not 503, which a gateway tries again at another process.
fn client_out_of_memory() -> Problem {
    Problem::new(ProblemKind::RateLimited)
        .detail("the bodies of all requests of this address are too large together; nothing was accepted")
        .retry_after(RETRY_AFTER)
}

fn timed_out(body_state: BodyState) -> Problem {
    if body_state == BodyState::Late {
        Problem::new(ProblemKind::RequestTimeout)
            .detail("the body did not arrive in time; nothing was accepted")
    } else {
        Problem::new(ProblemKind::Unavailable)
            .detail("the request took too long; whether it took effect is unknown")
            .retry_after(RETRY_AFTER)
    }
}
