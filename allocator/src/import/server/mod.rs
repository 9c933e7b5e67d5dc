//! The server that an import sends to: its address, its one client, and what its answers mean.

mod batch;
mod budget;
mod problem;
mod retry;

use std::path::Path;
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
use problem::Problem;

pub use batch::{BATCH_MAX_BYTES, BATCH_MAX_ITEMS, ItemOutcome};
pub use budget::{Budget, Definition};
pub use retry::RetryPolicy;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// From how many failures in a row on the user is told: with fewer, nobody has waited for long.
const FAILURES_TO_TELL: u32 = 3;
/// More than any answer to a batch has.
const ANSWER_MAX_BYTES: usize = 32 * 1024 * 1024;

/// A server, and how patient to be with it.
#[derive(Clone)]
pub struct Server {
    client: Client,
    base: Url,
    token: Option<HeaderValue>,
    retry: RetryPolicy,
    stop: CancellationToken,
    /// Whether the user knows that the server keeps us waiting.
    told: Arc<AtomicBool>,
}

/// A request's body.
struct Body {
    media_type: &'static str,
    bytes: Bytes,
}

/// An answer, read whole.
struct Answer {
    status: StatusCode,
    retry_after: Option<Duration>,
    body: Vec<u8>,
}

/// Why there is no answer to go on with.
enum Failure {
    /// It may be otherwise soon.
    Passing {
        reason: String,
        retry_after: Option<Duration>,
    },
    Final(ImportError),
}

impl Server {
    /// Makes the client for a server. `stop` ends every wait.
    ///
    /// # Errors
    /// When the address is no URL for HTTP, or the token's file holds none.
    pub fn new(
        url: &str,
        token_file: Option<&Path>,
        retry: RetryPolicy,
        stop: CancellationToken,
    ) -> Result<Self, ImportError> {
        let asked = |detail: String| ImportError::Asked(detail);
        let base = Url::parse(url).map_err(|error| asked(format!("--url: {error}")))?;
        if !matches!(base.scheme(), "http" | "https") || !base.has_host() {
            return Err(asked("--url must be like http://127.0.0.1:8000".to_owned()));
        }
        let token = token_file.map(read_token).transpose()?;
        let client = Client::builder()
            .user_agent(concat!("allocator/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(REQUEST_TIMEOUT)
            .tcp_nodelay(true)
            .build()
            .map_err(|error| ImportError::Internal(chain(&error)))?;
        Ok(Self { client, base, token, retry, stop, told: Arc::default() })
    }

    /// Where the server is, without a password that the address may hold.
    pub fn address(&self) -> String {
        self.base.origin().ascii_serialization()
    }

    fn url(&self, path: &[&str]) -> Url {
        let mut url = self.base.clone();
        // Only a URL without a host cannot be a base.
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(["v1", "budgets"]).extend(path);
        }
        url
    }

    /// Sends one request until it is answered with something else than "not now".
    async fn send(
        &self,
        method: Method,
        path: &[&str],
        body: Option<Body>,
    ) -> Result<Answer, ImportError> {
        let mut attempts = self.attempts();
        loop {
            match self.once(&method, path, body.as_ref()).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => attempts.after(failure).await?,
            }
        }
    }

    /// Sends one request, once.
    async fn once(
        &self,
        method: &Method,
        path: &[&str],
        body: Option<&Body>,
    ) -> Result<Answer, Failure> {
        let mut request = self.client.request(method.clone(), self.url(path));
        if let Some(Body { media_type, bytes }) = body {
            request = request.header(CONTENT_TYPE, *media_type).body(bytes.clone());
        }
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, token.clone());
        }
        let response = request.send().await.map_err(|error| Failure::of(&error))?;
        let answer = Answer::read(response).await?;
        if is_passing(answer.status) {
            let retry_after = answer.retry_after;
            return Err(Failure::Passing { reason: answer.line(), retry_after });
        }
        Ok(answer)
    }

    fn attempts(&self) -> Attempts<'_> {
        Attempts { server: self, began: Instant::now(), failures: 0 }
    }
}

/// The attempts at one thing.
struct Attempts<'s> {
    server: &'s Server,
    began: Instant,
    failures: u32,
}

impl Attempts<'_> {
    /// Waits until it makes sense to try again.
    async fn after(&mut self, failure: Failure) -> Result<(), ImportError> {
        let (reason, retry_after) = match failure {
            Failure::Final(error) => return Err(error),
            Failure::Passing { reason, retry_after } => (reason, retry_after),
        };
        self.failures = self.failures.saturating_add(1);
        let Server { retry, stop, told, .. } = self.server;
        if self.failures == FAILURES_TO_TELL && !told.swap(true, Ordering::Relaxed) {
            let seconds = retry.patience.as_secs();
            console::err(&format!("trying again, for up to {seconds} s: {reason}\n"));
        }
        let wait = retry.wait(self.failures, fastrand::f64(), retry_after);
        if self.began.elapsed() + wait > retry.patience {
            let seconds = self.began.elapsed().as_secs();
            return Err(ImportError::Unreachable { seconds, reason });
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => Ok(()),
            () = stop.cancelled() => Err(ImportError::Stopped),
        }
    }
}

impl Failure {
    fn of(error: &reqwest::Error) -> Self {
        // Without the URL, which the user knows and which may hold a password.
        let reason = chain(error);
        if error.is_builder() {
            return Self::Final(ImportError::Internal(reason));
        }
        Self::Passing { reason, retry_after: None }
    }
}

impl Answer {
    async fn read(mut response: Response) -> Result<Self, Failure> {
        let status = response.status();
        let retry_after = response.headers().get(RETRY_AFTER).and_then(seconds);
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| Failure::of(&error))? {
            if body.len() + chunk.len() > ANSWER_MAX_BYTES {
                let detail = format!("its answer is longer than {ANSWER_MAX_BYTES} bytes");
                return Err(Failure::Final(ImportError::Refused(detail)));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Self { status, retry_after, body })
    }

    fn problem(&self) -> Problem {
        Problem::in_body(&self.body)
    }

    fn line(&self) -> String {
        self.problem().line(self.status.as_u16())
    }
}

/// Answers that say "not now", and those of a gateway that had none.
fn is_passing(status: StatusCode) -> bool {
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

/// `Retry-After` in seconds; its form as a date is none that our services send.
fn seconds(value: &HeaderValue) -> Option<Duration> {
    let seconds: u32 = value.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(u64::from(seconds)))
}

fn read_token(path: &Path) -> Result<HeaderValue, ImportError> {
    let wrong = |what: &str| ImportError::Asked(format!("--token-file {}: {what}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| wrong(&error.to_string()))?;
    let token = text.trim();
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(wrong("must hold one word of visible ASCII characters"));
    }
    let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
        .map_err(|_| wrong("must hold one word of visible ASCII characters"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// An error with what is behind it: reqwest's own text alone says little. Without its URL.
fn chain(error: &reqwest::Error) -> String {
    let mut text = match (error.is_timeout(), error.is_connect()) {
        (true, _) => "no answer in time".to_owned(),
        (false, true) => "cannot connect".to_owned(),
        (false, false) => "the connection broke".to_owned(),
    };
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        text.push_str(&format!(": {error}"));
        source = error.source();
    }
    text
}
