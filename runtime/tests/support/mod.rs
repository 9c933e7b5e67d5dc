//! A server on a free port, and a client that writes raw bytes and parses responses.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use runtime::client::TrustedProxies;
use runtime::health::Health;
use runtime::http::{self, HttpConfig, ServeError};
use runtime::metrics::Metrics;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Upper bound of every wait in a test.
pub const TEST_TIMEOUT: Duration = Duration::from_secs(20);

/// Awaits a future; fails the test after the timeout.
pub async fn within<T>(work: impl Future<Output = T>) -> T {
    timeout(TEST_TIMEOUT, work).await.expect("not within the test timeout")
}

pub struct Server {
    pub address: SocketAddr,
    pub metrics: Metrics,
    pub health: Health,
    pub stop: CancellationToken,
    pub task: JoinHandle<Result<(), ServeError>>,
}

impl Server {
    pub fn start(routes: Router, config: HttpConfig) -> Self {
        Self::start_until(routes, config, CancellationToken::new())
    }

    pub fn start_until(routes: Router, config: HttpConfig, stop: CancellationToken) -> Self {
        Self::start_behind(TrustedProxies::default(), routes, config, stop)
    }

    pub fn start_behind(
        proxies: TrustedProxies,
        routes: Router,
        config: HttpConfig,
        stop: CancellationToken,
    ) -> Self {
        let metrics = Metrics::new("test");
        let health = Health::default();
        let listener = http::bind(([127, 0, 0, 1], 0).into()).expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        let router = http::router("test", routes, &metrics, &health, &config);
        let task = tokio::spawn({
            let (metrics, stop) = (metrics.clone(), stop.clone());
            async move { http::serve(listener, router, &config, &proxies, &metrics, stop).await }
        });
        Self { address, metrics, health, stop, task }
    }

    pub async fn connect(&self) -> Client {
        let stream = within(TcpStream::connect(self.address)).await.expect("the server listens");
        Client { stream, read: Vec::new() }
    }

    /// Sends a raw request on a new connection.
    pub async fn send(&self, request: &str) -> Response {
        let mut client = self.connect().await;
        client.send(request).await;
        client.response().await.expect("a response")
    }

    /// Returns the value of a sample, named with its labels as in `/metrics`.
    pub fn sample(&self, name_and_labels: &str) -> f64 {
        let text = String::from_utf8(self.metrics.render()).expect("text");
        text.lines()
            .find_map(|line| line.strip_prefix(name_and_labels)?.trim().parse().ok())
            .unwrap_or(0.0)
    }
}

/// Waits until a condition holds.
pub async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(timeout(TEST_TIMEOUT, wait).await.is_ok(), "never: {what}");
}

pub struct Client {
    pub stream: TcpStream,
    read: Vec<u8>,
}

impl Client {
    pub async fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.expect("the server reads");
    }

    /// Reads the next response; `None` if the server closed without one.
    pub async fn response(&mut self) -> Option<Response> {
        within(async {
            loop {
                if let Some((response, used)) = Response::parse(&self.read) {
                    self.read.drain(..used);
                    return Some(response);
                }
                if self.stream.read_buf(&mut self.read).await.unwrap_or(0) == 0 {
                    assert!(self.read.is_empty(), "incomplete response: {:?}", self.read);
                    return None;
                }
            }
        })
        .await
    }

    /// Reads until the server closes the connection.
    pub async fn is_closed(&mut self) -> bool {
        within(async { while self.stream.read_buf(&mut self.read).await.unwrap_or(0) > 0 {} })
            .await;
        true
    }
}

#[derive(Debug)]
pub struct Response {
    pub status: u16,
    head: String,
    pub body: Vec<u8>,
}

impl Response {
    fn parse(bytes: &[u8]) -> Option<(Self, usize)> {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
        let head = String::from_utf8(bytes[..end].to_vec()).expect("a head of text");
        let status = head.split(' ').nth(1)?.parse().ok()?;
        let mut response = Self { status, head, body: Vec::new() };
        let length: usize = response.header("content-length").unwrap_or("0").parse().ok()?;
        response.body = bytes.get(end..end + length)?.to_vec();
        Some((response, end + length))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    /// Asserts that this is a complete problem of a kind, and returns it. The problem must have
    /// this request's id.
    #[track_caller]
    pub fn problem(&self, status: u16, slug: &str) -> Value {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        let problem = self.json();
        assert_eq!(problem["type"], format!("/problems/{slug}"));
        assert_eq!(problem["status"], status);
        assert!(problem["title"].is_string());
        let id = self.header("x-request-id").expect("an id");
        assert_eq!(problem["instance"], id);
        problem
    }
}
