//! Overload on a real server: requests are shed by class, a person's own submission last, and every permit comes back.
#![allow(clippy::unwrap_used, clippy::expect_used, dead_code, missing_docs)]

mod support;

use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::middleware::from_fn_with_state;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use futures_util::stream;
use runtime::admin::{AdminConfig, AdminGuard};
use runtime::config::{Settings, defaults};
use runtime::http::HttpConfig;
use runtime::limits::{
    ChargeTiming, EndpointClass, LimitTicket, LimitsConfig, LocalCounters, ReadLimitLayer,
    RequestLimits, WriteLimit, limit_write,
};
use runtime::metrics::Metrics;
use runtime::principal::{Authenticator, IdentityConfig, SessionKey};
use support::{Client, Response, Server, eventually, within};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

const READ: &str = "GET /read HTTP/1.1\r\nhost: test\r\n\r\n";
const PAGE: &str = "GET /page HTTP/1.1\r\nhost: test\r\n\r\n";
const SIGN_IN: &str = "POST /sign-in HTTP/1.1\r\nhost: test\r\ncontent-length: 0\r\n\r\n";
const BATCH: &str = "POST /batch HTTP/1.1\r\nhost: test\r\ncontent-length: 0\r\n\r\n";
/// From another machine: limits of the public apply.
const SUBMISSION: &str = "POST /submission HTTP/1.1\r\nhost: test\r\nx-forwarded-for: 192.0.2.1\r\ncontent-length: 0\r\n\r\n";
const PANIC: &str = "GET /panic HTTP/1.1\r\nhost: test\r\n\r\n";
const STREAM: &str = "GET /stream HTTP/1.1\r\nhost: test\r\n\r\n";

struct Fixture {
    server: Server,
    limit_metrics: Metrics,
    /// A message for each request that waits in its handler.
    entered: mpsc::Receiver<()>,
    /// Lets all handlers respond.
    open: CancellationToken,
}

fn limits(max_requests: usize, metrics: &Metrics) -> RequestLimits {
    let keys = ["general", "pages", "person", "submissions", "uploads", "sign_in", "services"];
    let off = keys.map(|key| (format!("limits.{key}"), "off".to_owned()));
    let only = "only address fixed-window 1/1h on=submission".to_owned();
    let settings = Settings::from_pairs(off.into_iter().chain([("limits.extra".to_owned(), only)]));
    let mut reader = settings.reader();
    let config = LimitsConfig::read(&mut reader);
    let config = reader.finish(config).unwrap();
    let guard = AdminGuard::new(&defaults(AdminConfig::read), metrics).unwrap();
    let (identity, key) = (defaults(IdentityConfig::read), SessionKey::new(&[1; 32]));
    let authenticator = Authenticator::new(&identity, key, guard, metrics).unwrap();
    let counters = Arc::<LocalCounters>::default();
    RequestLimits::new(&config, max_requests, authenticator, counters, metrics).unwrap()
}

impl Fixture {
    /// Starts a server with a route of each class, whose handlers wait.
    fn start(max_requests: usize) -> Self {
        let limit_metrics = Metrics::new("test");
        let limits = limits(max_requests, &limit_metrics);
        let (enter, entered) = mpsc::channel(16);
        let open = CancellationToken::new();
        let gate = {
            let open = open.clone();
            async move || {
                enter.send(()).await.unwrap();
                open.cancelled().await;
                "through"
            }
        };
        let charging_gate = {
            let gate = gate.clone();
            async move |ticket: LimitTicket, _: Bytes| {
                if let Err(problem) = ticket.charge(&[], 1).await {
                    return problem.into_response();
                }
                gate().await.into_response()
            }
        };
        let panics = async || -> &'static str { panic!("a bug") };
        let endless = async || Body::from_stream(stream::pending::<Result<Bytes, Infallible>>());
        let reads = Router::new()
            .route("/read", get(gate.clone()))
            .route("/panic", get(panics))
            .route("/stream", get(endless))
            .route_layer(ReadLimitLayer::new(&limits, EndpointClass::Read));
        let pages = Router::new()
            .route("/page", get(gate.clone()))
            .route_layer(ReadLimitLayer::new(&limits, EndpointClass::Page));
        let mut routes = reads.merge(pages).route("/unlimited", get(async || "unlimited"));
        let before_handler = post(gate.clone());
        let by_handler = post(charging_gate);
        for (path, class, charging, handler) in [
            ("/sign-in", EndpointClass::SignIn, ChargeTiming::BeforeHandler, before_handler),
            ("/batch", EndpointClass::Batch, ChargeTiming::ByHandler, by_handler.clone()),
            ("/submission", EndpointClass::Submission, ChargeTiming::ByHandler, by_handler),
        ] {
            let limit = WriteLimit { limits: limits.clone(), class, charging };
            let write = Router::new()
                .route(path, handler)
                .route_layer(from_fn_with_state(limit, limit_write));
            routes = routes.merge(write);
        }
        let server = Server::start(routes, HttpConfig::default());
        Self { server, limit_metrics, entered, open }
    }

    /// Sends a request that is admitted and waits in its handler.
    async fn wait_in(&mut self, request: &str) -> Client {
        let mut client = self.server.connect().await;
        client.send(request).await;
        within(self.entered.recv()).await.unwrap();
        client
    }

    async fn is_shed(&self, request: &str) {
        let response = self.server.send(request).await;
        assert_shed(&response);
    }

    async fn until_none_is_in_flight(&self) {
        let in_flight = "allocator_http_requests_in_flight{service=\"test\"}";
        eventually("no request is in flight", || self.server.sample(in_flight) == 0.0).await;
    }

    fn shed(&self, class: &str) -> f64 {
        let text = String::from_utf8(self.limit_metrics.render()).unwrap();
        let name = format!("allocator_limits_shed_requests_total{{class=\"{class}\"}} ");
        text.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok()).unwrap()
    }
}

#[track_caller]
fn assert_shed(response: &Response) {
    let problem = response.problem(503, "unavailable");
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("nothing was accepted"), "{detail}");
    assert_eq!(response.header("retry-after"), Some("1"));
    assert_eq!(response.header("ratelimit"), None, "a shed request is charged to no limit");
}

#[tokio::test]
async fn requests_are_shed_by_class_and_a_submission_last() {
    let mut fixture = Fixture::start(8);
    let mut waiting = Vec::new();
    for _ in 0..4 {
        waiting.push(fixture.wait_in(READ).await);
    }
    fixture.is_shed(BATCH).await;
    for _ in 4..6 {
        waiting.push(fixture.wait_in(READ).await);
    }
    fixture.is_shed(READ).await;
    fixture.is_shed(BATCH).await;
    waiting.push(fixture.wait_in(PAGE).await);
    fixture.is_shed(PAGE).await;
    fixture.is_shed(SIGN_IN).await;
    fixture.is_shed(READ).await;
    waiting.push(fixture.wait_in(SUBMISSION).await);
    fixture.is_shed(SUBMISSION).await;
    let classes = ["batch", "read", "page", "sign-in", "submission"];
    assert_eq!(classes.map(|class| fixture.shed(class)), [2.0, 2.0, 1.0, 1.0, 1.0]);

    // Routes without rate limits are not among the requests that are counted.
    let unlimited = fixture.server.send("GET /unlimited HTTP/1.1\r\nhost: test\r\n\r\n").await;
    assert_eq!(unlimited.status, 200);

    fixture.open.cancel();
    for mut client in waiting {
        assert_eq!(client.response().await.unwrap().status, 200);
    }
    fixture.until_none_is_in_flight().await;
    assert_eq!(fixture.server.send(BATCH).await.status, 200);
}

#[tokio::test]
async fn a_permit_comes_back_when_a_client_hangs_up_or_a_handler_panics() {
    let mut fixture = Fixture::start(1);
    for request in [READ, PAGE, BATCH] {
        let waiting = fixture.wait_in(request).await;
        fixture.is_shed(SUBMISSION).await;
        drop(waiting);
        fixture.until_none_is_in_flight().await;
    }
    for _ in 0..3 {
        assert_eq!(fixture.server.send(PANIC).await.status, 500);
    }
    fixture.until_none_is_in_flight().await;
    fixture.wait_in(SUBMISSION).await;
}

#[tokio::test]
async fn a_stream_holds_no_permit_once_its_headers_are_sent() {
    let fixture = Fixture::start(1);
    let mut readers = Vec::new();
    for _ in 0..5 {
        let mut reader = fixture.server.connect().await;
        reader.send(STREAM).await;
        assert_eq!(reader.response().await.unwrap().status, 200);
        readers.push(reader);
    }
    assert_eq!(fixture.shed("read"), 0.0);
}

#[tokio::test]
async fn writes_whose_bodies_arrive_slowly_take_nobodys_place() {
    let mut fixture = Fixture::start(1);
    let in_flight = "allocator_http_requests_in_flight{service=\"test\"}";
    let mut slow = Vec::new();
    for (request, count) in [(SUBMISSION, 1.0), (BATCH, 2.0), (SUBMISSION, 3.0)] {
        let mut client = fixture.server.connect().await;
        client.send(&request.replace("content-length: 0", "content-length: 3")).await;
        eventually("the request is in flight", || fixture.server.sample(in_flight) == count).await;
        slow.push(client);
    }
    let waiting = fixture.wait_in(PAGE).await;
    // Its body is there, and now there is no place for it.
    slow[0].send("abc").await;
    assert_shed(&slow[0].response().await.unwrap());
    drop(waiting);
    fixture.open.cancel();
    eventually("the page is abandoned", || fixture.server.sample(in_flight) == 2.0).await;
    slow[2].send("abc").await;
    assert_eq!(slow[2].response().await.unwrap().status, 200);
}

#[tokio::test]
async fn a_request_is_shed_before_its_body_is_read_and_before_it_is_charged() {
    let mut fixture = Fixture::start(1);
    let waiting = fixture.wait_in(PAGE).await;
    // The body never comes.
    fixture.is_shed(&SUBMISSION.replace("content-length: 0", "content-length: 100000")).await;
    fixture.is_shed(SUBMISSION).await;
    drop(waiting);
    fixture.until_none_is_in_flight().await;

    // The limit admits one submission, and that is this one.
    fixture.open.cancel();
    assert_eq!(fixture.server.send(SUBMISSION).await.status, 200);
    fixture.server.send(SUBMISSION).await.problem(429, "rate-limited");
}
