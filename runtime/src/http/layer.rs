//! The one layer around every route: id, metrics, access log, limits, panics, problems.
//!
//! It is one hand-written service and future, so that a request from memory pays for a few atomic additions and
//! nothing is boxed that the framework does not box itself.

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
use http::HeaderValue;
use http::header::CONNECTION;
use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep_until};
use tower::{Layer, Service};

use super::HttpConfig;
use super::answer::{self, UNMATCHED};
use super::body::{self, BodyWatch, Buffered, Reading};
use super::exchange::Exchange;
use super::request_id::{RequestId, X_REQUEST_ID};
use crate::metrics::{RequestMetrics, RouteMetrics};
use crate::problem::{Problem, ProblemKind};

/// How long a client should wait when we are the ones who are slow or full.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Wraps each route once, when the router is built.
#[derive(Debug, Clone)]
pub(super) struct RequestLayer {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    metrics: Arc<RequestMetrics>,
    request_timeout: Duration,
    max_body_bytes: usize,
    buffered: Arc<Buffered>,
}

impl RequestLayer {
    pub(super) fn new(metrics: RequestMetrics, config: &HttpConfig) -> Self {
        Self {
            shared: Arc::new(Shared {
                metrics: Arc::new(metrics),
                request_timeout: config.request_timeout,
                max_body_bytes: config.max_body_bytes,
                buffered: Buffered::new(config.max_buffered_bytes),
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

/// One wrapped route.
#[derive(Debug, Clone)]
pub(super) struct RequestService<S> {
    inner: S,
    shared: Arc<Shared>,
    /// Each instance stands on one route (or where none matches); which one, its first request tells.
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
            RequestId::of(request.headers()),
            request.method(),
            Arc::clone(route),
            Arc::clone(&self.shared.metrics),
        )
    }

    /// Bounds the body of a request that has one; the layer, not the framework, knows the limit.
    fn bound_body(&self, request: &mut Request) -> Result<Option<Arc<BodyWatch>>, Problem> {
        let body = request.body();
        if body.is_end_stream() {
            return Ok(None);
        }
        let max_bytes = self.shared.max_body_bytes;
        // What is moderately too large is read and thrown away, so that its sender sees the answer.
        let readable = max_bytes.saturating_add(body::DISCARD_BYTES);
        if usize::try_from(body.size_hint().lower()).is_ok_and(|bytes| bytes <= readable) {
            let body = std::mem::replace(request.body_mut(), Body::empty());
            let (body, watch) = body::bound(body, max_bytes, &self.shared.buffered);
            *request.body_mut() = body;
            DefaultBodyLimit::disable().apply(request);
            Ok(Some(watch))
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
        let (work, body) = match self.bound_body(&mut request) {
            Ok(body) => (Work::Running { inner: self.inner.call(request) }, body),
            Err(problem) => (Work::Refused { problem: Some(problem) }, None),
        };
        RequestFuture { work, deadline: None, body, exchange, shared: Arc::clone(&self.shared) }
    }
}

pin_project! {
    /// A request on its way.
    pub(super) struct RequestFuture<F> {
        #[pin]
        work: Work<F>,
        // Set only when the handler does not answer at once: most answers need no timer.
        #[pin]
        deadline: Option<Sleep>,
        body: Option<Arc<BodyWatch>>,
        exchange: Exchange,
        shared: Arc<Shared>,
    }
}

pin_project! {
    #[project = WorkProjection]
    enum Work<F> {
        Running { #[pin] inner: F },
        Refused { problem: Option<Problem> },
    }
}

impl<F> Future for RequestFuture<F>
where
    F: Future<Output = Result<Response, Infallible>>,
{
    type Output = Result<Response, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let reading = || this.body.as_ref().map_or(Reading::Well, |body| body.reading());
        let answer = match this.work.project() {
            WorkProjection::Refused { problem } => close(problem.take()),
            WorkProjection::Running { inner } => {
                // A panic ends the handler's future, which is not polled again; nothing else of it is used.
                match catch_unwind(AssertUnwindSafe(|| inner.poll(cx))) {
                    Ok(Poll::Ready(Ok(answer))) => answer,
                    Ok(Poll::Pending) => {
                        let end = this.exchange.started + this.shared.request_timeout;
                        if this.deadline.is_none() {
                            this.deadline.set(Some(sleep_until(end.into())));
                        }
                        match this.deadline.as_pin_mut().map(|deadline| deadline.poll(cx)) {
                            Some(Poll::Ready(())) => close(Some(too_slow(reading()))),
                            _ => return Poll::Pending,
                        }
                    }
                    Err(_) => {
                        this.exchange.panicked();
                        Problem::new(ProblemKind::Internal).into_response()
                    }
                }
            }
        };
        // Handlers see an oversized body as a body that broke off; the client is told what it was.
        let mut answer = match reading() {
            Reading::TooLarge => close(Some(too_large(this.shared.max_body_bytes))),
            Reading::NoRoom => close(Some(no_room())),
            Reading::Well | Reading::Waiting => answer,
        };
        let exchange = this.exchange;
        if answer.status().is_client_error() || answer.status().is_server_error() {
            answer = answer::as_problem(answer, &exchange.id, exchange.route());
        }
        answer.headers_mut().insert(X_REQUEST_ID, exchange.id.header_value());
        exchange.answered(&answer);
        let answer = answer.map(|answer| body::hold(answer, this.body));
        Poll::Ready(Ok(answer))
    }
}

/// Answers a request whose body is not read to its end, so that the connection cannot be used again.
fn close(problem: Option<Problem>) -> Response {
    problem
        .unwrap_or_else(|| Problem::new(ProblemKind::Internal))
        .header(CONNECTION, HeaderValue::from_static("close"))
        .into_response()
}

fn too_large(max_bytes: usize) -> Problem {
    Problem::new(ProblemKind::ContentTooLarge)
        .detail(format!("a body may have at most {max_bytes} bytes; nothing was accepted"))
}

fn no_room() -> Problem {
    Problem::new(ProblemKind::Unavailable)
        .detail("too many large requests at once; nothing of this one was accepted")
        .retry_after(RETRY_AFTER)
}

fn too_slow(reading: Reading) -> Problem {
    if reading == Reading::Waiting {
        Problem::new(ProblemKind::RequestTimeout)
            .detail("the body did not arrive in time; nothing was accepted")
    } else {
        Problem::new(ProblemKind::Unavailable)
            .detail("the answer took too long; whether the request took effect is not known")
            .retry_after(RETRY_AFTER)
    }
}
