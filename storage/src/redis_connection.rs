//! A connection to Redis that reconnects in the background: it is dropped at the first error, and calls fail at once
//! while it is down. Used by the cache and the idempotency store, which own the commands.
//!
//! Not redis's own `ConnectionManager`: its calls wait for the whole backoff during a reconnect, and a reader that has
//! another tier must not wait.

use std::fmt;
use std::future::Future;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use backon::{ExponentialBuilder, Retryable};
use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, Client, ConnectionInfo, ErrorKind, IntoConnectionInfo, ProtocolVersion,
    RedisError, RedisResult, ServerErrorKind,
};
use tokio::sync::{Notify, watch};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

/// Bounds one attempt to connect and ping. Only [`RedisConnection::open`] waits for it.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Commands that may wait to be written to the connection.
const MAX_QUEUED_COMMANDS: usize = 4_096;

/// The URL of a Redis: `redis://[user:password@]host:port[/database]`. Displayed without user and password.
#[derive(Clone)]
pub struct RedisUrl(ConnectionInfo);

/// An invalid Redis URL. The error does not repeat it, since it may contain a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be like `redis://user:password@host:6379/0`")]
pub struct InvalidRedisUrl;

impl FromStr for RedisUrl {
    type Err = InvalidRedisUrl;

    fn from_str(text: &str) -> Result<Self, InvalidRedisUrl> {
        let info = text.into_connection_info().map_err(|_| InvalidRedisUrl)?;
        // Nagle's algorithm would delay small commands, and pub/sub connections support RESP2 only.
        let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP2);
        let info = info
            .set_tcp_settings(TcpSettings::default().set_nodelay(true))
            .set_redis_settings(settings);
        Client::open(info.clone()).map_err(|_| InvalidRedisUrl)?;
        Ok(Self(info))
    }
}

impl RedisUrl {
    pub(crate) fn client(&self) -> RedisResult<Client> {
        Client::open(self.0.clone())
    }
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "redis://{}/{}", self.0.addr(), self.0.redis_settings().db())
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RedisUrl({self})")
    }
}

/// How to connect to Redis.
#[derive(Debug, Clone)]
pub struct RedisConfig {
    /// The server's URL.
    pub url: RedisUrl,
    /// Bounds one call.
    pub timeout: Duration,
}

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RedisCallError {
    /// There is no connection, and nothing was sent.
    #[error("Redis is not connected")]
    Disconnected,
    /// The call timed out.
    #[error("Redis did not answer within {} ms", .0.as_millis())]
    TimedOut(Duration),
    /// The call returned an error.
    #[error("{0}")]
    Failed(String),
}

impl RedisCallError {
    /// Describes an error without what the server says of it: that may repeat keys, some of which have an address.
    pub(crate) fn failed(error: &RedisError) -> Self {
        Self::Failed(match (error.detail(), error.code()) {
            (Some(_), Some(code)) => format!("Redis answered with the error {code}"),
            (Some(_), None) => format!("a call of Redis failed: {}", error.category()),
            (None, _) => error.to_string(),
        })
    }
}

/// Returns the pauses between attempts to connect: 50 ms, doubling up to one second, without a last attempt.
pub(crate) fn reconnect_backoff() -> ExponentialBuilder {
    ExponentialBuilder::new()
        .with_min_delay(Duration::from_millis(50))
        .with_factor(2.0)
        .with_max_delay(Duration::from_secs(1))
        .without_max_times()
}

/// The current connection, if there is one.
#[derive(Default)]
struct CurrentConnection {
    connection: ArcSwapOption<MultiplexedConnection>,
    lost: Notify,
}

impl CurrentConnection {
    /// Drops a broken connection, unless it was replaced already.
    fn discard(&self, broken: &Arc<MultiplexedConnection>) {
        let previous = self.connection.compare_and_swap(broken, None);
        if previous.as_ref().is_some_and(|previous| Arc::ptr_eq(previous, broken)) {
            self.lost.notify_one();
        }
    }
}

/// A connection that reconnects in the background. Calls fail at once while it is down.
pub(crate) struct RedisConnection {
    current: Arc<CurrentConnection>,
    timeout: Duration,
    _task: AbortOnDropHandle<()>,
}

impl RedisConnection {
    /// Starts connecting in the background, and waits until the first attempt has succeeded or failed.
    pub(crate) async fn open(config: &RedisConfig) -> Self {
        let current = Arc::new(CurrentConnection::default());
        let (attempted, mut first_attempt) = watch::channel(());
        let task =
            tokio::spawn(keep_connected(config.url.clone(), Arc::clone(&current), attempted));
        // An error means that the task has ended, and then there is nothing to wait for.
        let _ = first_attempt.changed().await;
        Self { current, timeout: config.timeout, _task: AbortOnDropHandle::new(task) }
    }

    /// Makes one call within the timeout, or fails at once when there is no connection.
    pub(crate) async fn call<T, F>(
        &self,
        run: impl FnOnce(MultiplexedConnection) -> F,
    ) -> Result<T, RedisCallError>
    where
        F: Future<Output = RedisResult<T>>,
    {
        let Some(connection) = self.current.connection.load_full() else {
            return Err(RedisCallError::Disconnected);
        };
        match timeout(self.timeout, run(MultiplexedConnection::clone(&connection))).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                if requires_reconnect(&error) {
                    self.current.discard(&connection);
                }
                Err(RedisCallError::failed(&error))
            }
            Err(_) => {
                self.current.discard(&connection);
                Err(RedisCallError::TimedOut(self.timeout))
            }
        }
    }
}

/// Returns whether the connection or its server is unusable. Other errors concern the call only.
fn requires_reconnect(error: &RedisError) -> bool {
    match error.kind() {
        ErrorKind::Server(kind) => matches!(
            kind,
            ServerErrorKind::BusyLoading | ServerErrorKind::MasterDown | ServerErrorKind::ReadOnly
        ),
        ErrorKind::UnexpectedReturnType | ErrorKind::Extension => false,
        _ => true,
    }
}

async fn keep_connected(
    url: RedisUrl,
    current: Arc<CurrentConnection>,
    attempted: watch::Sender<()>,
) {
    loop {
        let mut logged = false;
        let connected = (|| connect(&url)).retry(reconnect_backoff()).notify(|error, pause| {
            // Once per outage.
            if !logged {
                let retry_in_ms = pause.as_millis() as u64;
                tracing::warn!(%url, %error, retry_in_ms, "redis connection failed, retrying");
                logged = true;
            }
            attempted.send_replace(());
        });
        // The backoff has no last attempt.
        let Ok(connection) = connected.await else { continue };
        current.connection.store(Some(Arc::new(connection)));
        tracing::info!(%url, "redis connected");
        attempted.send_replace(());
        while current.connection.load().is_some() {
            current.lost.notified().await;
        }
        tracing::warn!(%url, "redis connection lost, reconnecting");
    }
}

/// Connects and pings: a server that hangs still accepts connections.
async fn connect(url: &RedisUrl) -> Result<MultiplexedConnection, RedisCallError> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(None)
        .set_response_timeout(None)
        .set_pipeline_buffer_size(MAX_QUEUED_COMMANDS);
    let attempt = async {
        let mut connection =
            url.client()?.get_multiplexed_async_connection_with_config(&config).await?;
        let () = redis::cmd("PING").query_async(&mut connection).await?;
        Ok(connection)
    };
    match timeout(CONNECT_TIMEOUT, attempt).await {
        Ok(connected) => connected.map_err(|error: RedisError| RedisCallError::failed(&error)),
        Err(_) => Err(RedisCallError::TimedOut(CONNECT_TIMEOUT)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_the_server_repeats_no_key() {
        let key = "{limits}:submissions:192.0.2.7";
        let answer =
            format!("-ERR unknown command 'EVALSHA', with args beginning with: '{key}'\r\n");
        let error = match redis::parse_redis_value(answer.as_bytes()) {
            Ok(redis::Value::ServerError(error)) => RedisError::from(error),
            Ok(other) => panic!("{other:?}"),
            Err(error) => error,
        };
        assert!(error.to_string().contains(key), "{error}");
        let described = RedisCallError::failed(&error).to_string();
        assert_eq!(described, "Redis answered with the error ERR");
    }

    #[test]
    fn no_representation_contains_the_password() {
        let url: RedisUrl = "redis://someone:secret-word@cache:6380/2".parse().unwrap();
        let config = RedisConfig { url: url.clone(), timeout: Duration::from_millis(50) };
        let shown = format!("{url} {url:?} {config:?}");
        assert!(shown.contains("cache:6380"), "{shown}");
        assert!(!shown.contains("secret-word") && !shown.contains("someone"), "{shown}");
        let error = "reddis://someone:secret-word@cache:6380".parse::<RedisUrl>().unwrap_err();
        assert!(!format!("{error} {error:?}").contains("secret-word"));
    }

    #[test]
    fn invalid_urls_are_rejected() {
        for text in ["", "redis://", "http://host:6379", "redis://host:notaport", "host:6379"] {
            assert_eq!(text.parse::<RedisUrl>().err(), Some(InvalidRedisUrl), "{text:?}");
        }
    }
}
