//! The server of an import: its address, the HTTP client, and the meaning of its responses.

mod batch;
mod budget;
mod problem;
mod retry;
mod token;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::Bytes;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use reqwest::{Client, Method, Response, StatusCode, Url};
use runtime::console;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::error::ImportError;
use problem::ServerProblem;

pub use batch::{BATCH_MAX_BYTES, BATCH_MAX_ITEMS, ItemOutcome};
pub use budget::{Budget, Definition};
pub use retry::RetryPolicy;
pub use token::{Token, find_token};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a stopped import waits for its requests in flight.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);
/// Consecutive failures before the retry message is printed: fewer take less than a second.
const FAILURES_BEFORE_MESSAGE: u32 = 3;
/// Maximum size of a response, larger than that of any batch response.
const RESPONSE_MAX_BYTES: usize = 32 * 1024 * 1024;

/// A client of one server, with its retry policy.
#[derive(Clone)]
pub struct Server {
    client: Client,
    base: Url,
    token: Option<Token>,
    retry: RetryPolicy,
    stop: CancellationToken,
    /// Whether the retry message has been printed.
    retry_printed: Arc<AtomicBool>,
}

/// A request body.
struct Body {
    media_type: &'static str,
    bytes: Bytes,
}

/// A response with its complete body.
struct ServerResponse {
    status: StatusCode,
    retry_after: Option<Duration>,
    body: Vec<u8>,
}

/// A failed request.
enum Failure {
    /// A retry may succeed.
    Transient {
        reason: String,
        retry_after: Option<Duration>,
    },
    Permanent(ImportError),
}

impl Server {
    /// Creates a client. `stop` ends every delay, and soon every request.
    ///
    /// # Errors
    /// When the address is not an HTTP URL.
    pub fn new(
        url: &str,
        token: Option<Token>,
        retry: RetryPolicy,
        stop: CancellationToken,
    ) -> Result<Self, ImportError> {
        let usage = |detail: String| ImportError::Usage(detail);
        let base = Url::parse(url).map_err(|error| usage(format!("--url: {error}")))?;
        if !matches!(base.scheme(), "http" | "https") || !base.has_host() {
            return Err(usage("--url must be like http://127.0.0.1:8000".to_owned()));
        }
        let client = runtime::http_client::builder()
            .user_agent(concat!("allocator/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(REQUEST_TIMEOUT)
            .tcp_nodelay(true)
            .build()
            .map_err(|error| ImportError::Internal(describe(&error)))?;
        Ok(Self { client, base, token, retry, stop, retry_printed: Arc::default() })
    }

    /// The server's address, without a password.
    pub fn address(&self) -> String {
        self.base.origin().ascii_serialization()
    }

    fn url(&self, path: &[&str]) -> Url {
        let mut url = self.base.clone();
        // A URL with a host always has path segments.
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(["v1", "budgets"]).extend(path);
        }
        url
    }

    /// Sends one request and retries transient failures.
    async fn send(
        &self,
        method: Method,
        path: &[&str],
        body: Option<Body>,
    ) -> Result<ServerResponse, ImportError> {
        let mut backoff = self.backoff();
        loop {
            match self.send_once(&method, path, body.as_ref()).await {
                Ok(response) => return Ok(response),
                Err(failure) => backoff.wait_after(failure).await?,
            }
        }
    }

    /// Sends one request without retries.
    async fn send_once(
        &self,
        method: &Method,
        path: &[&str],
        body: Option<&Body>,
    ) -> Result<ServerResponse, Failure> {
        let mut request = self.client.request(method.clone(), self.url(path));
        if let Some(Body { media_type, bytes }) = body {
            request = request.header(CONTENT_TYPE, *media_type).body(bytes.clone());
        }
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, token.header.clone());
        }
        let exchange = async {
            let response = request.send().await.map_err(|error| Failure::from_http(&error))?;
            ServerResponse::read(response).await
        };
        let response = tokio::select! {
            biased;
            response = exchange => response?,
            () = self.stop_timeout() => return Err(Failure::Permanent(ImportError::Stopped)),
        };
        if response.status == StatusCode::UNAUTHORIZED
            && let Some(hint) = self.token.as_ref().and_then(Token::how_to_replace)
        {
            let reason = format!("{}; {hint}", response.summary());
            return Err(Failure::Permanent(ImportError::Rejected(reason)));
        }
        if is_transient(response.status) {
            let retry_after = response.retry_after;
            return Err(Failure::Transient { reason: response.summary(), retry_after });
        }
        Ok(response)
    }

    /// Waits for the stop, and then as long as requests in flight may take.
    async fn stop_timeout(&self) {
        self.stop.cancelled().await;
        tokio::time::sleep(STOP_TIMEOUT).await;
    }

    fn backoff(&self) -> Backoff<'_> {
        Backoff { server: self, started: Instant::now(), failures: 0 }
    }
}

/// Delays the retries of one request.
struct Backoff<'s> {
    server: &'s Server,
    started: Instant,
    failures: u32,
}

impl Backoff<'_> {
    /// Waits before the next retry.
    ///
    /// # Errors
    /// When the failure is permanent, the retries have timed out, or the user stopped the import.
    async fn wait_after(&mut self, failure: Failure) -> Result<(), ImportError> {
        let (reason, retry_after) = match failure {
            Failure::Permanent(error) => return Err(error),
            Failure::Transient { reason, retry_after } => (reason, retry_after),
        };
        self.failures = self.failures.saturating_add(1);
        let Server { retry, stop, retry_printed, .. } = self.server;
        if self.failures == FAILURES_BEFORE_MESSAGE && !retry_printed.swap(true, Ordering::Relaxed)
        {
            let seconds = retry.timeout.as_secs();
            console::err(&format!("retrying for up to {seconds} s: {reason}\n"));
        }
        let delay = retry.delay(self.failures, fastrand::f64(), retry_after);
        if self.started.elapsed() + delay > retry.timeout {
            let seconds = self.started.elapsed().as_secs();
            return Err(ImportError::Unreachable { seconds, reason });
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => Err(ImportError::Stopped),
            () = tokio::time::sleep(delay) => Ok(()),
        }
    }
}

impl Failure {
    fn from_http(error: &reqwest::Error) -> Self {
        let reason = describe(error);
        if error.is_builder() {
            return Self::Permanent(ImportError::Internal(reason));
        }
        Self::Transient { reason, retry_after: None }
    }
}

impl ServerResponse {
    async fn read(mut response: Response) -> Result<Self, Failure> {
        let status = response.status();
        let retry_after = response.headers().get(RETRY_AFTER).and_then(parse_seconds);
        let mut body = Vec::new();
        while let Some(chunk) =
            response.chunk().await.map_err(|error| Failure::from_http(&error))?
        {
            if body.len() + chunk.len() > RESPONSE_MAX_BYTES {
                let detail = format!("the response is larger than {RESPONSE_MAX_BYTES} bytes");
                return Err(Failure::Permanent(ImportError::Rejected(detail)));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Self { status, retry_after, body })
    }

    fn problem(&self) -> ServerProblem {
        ServerProblem::parse(&self.body)
    }

    fn summary(&self) -> String {
        self.problem().summary(self.status.as_u16())
    }
}

/// Whether a retry may succeed: overload, a server error, or a gateway without a response.
fn is_transient(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::REQUEST_TIMEOUT
            | StatusCode::TOO_MANY_REQUESTS
            | StatusCode::INTERNAL_SERVER_ERROR
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT
    )
}

/// Parses `Retry-After` in seconds. The services never send its date form.
fn parse_seconds(value: &HeaderValue) -> Option<Duration> {
    let seconds: u32 = value.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(u64::from(seconds)))
}

/// Describes an error and its sources, without the URL, which may hold a password.
fn describe(error: &reqwest::Error) -> String {
    let mut text = match (error.is_timeout(), error.is_connect()) {
        (true, _) => "timeout".to_owned(),
        (false, true) => "cannot connect".to_owned(),
        (false, false) => "connection lost".to_owned(),
    };
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        text.push_str(&format!(": {error}"));
        source = error.source();
    }
    text
}
