//! The connection to Redis that the cache and the idempotency memory share the code of: made in the background,
//! given up at the first sign of trouble, and made again. What is said over it is not decided here.
//!
//! Not redis's own `ConnectionManager`: a call that comes while that one reconnects waits for the whole backoff,
//! and a reader that has another tier to go to must not wait at all.

use std::fmt;
use std::future::Future;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, Client, ConnectionInfo, ErrorKind, IntoConnectionInfo, ProtocolVersion,
    RedisError, RedisResult, ServerErrorKind,
};
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

/// How long one attempt to connect and be answered may take. Nobody waits for it but [`RedisLink::open`].
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Commands that may wait for their turn to be written.
const PIPELINE_BUFFER: usize = 4_096;

/// Where Redis is: `redis://[user:password@]host:port[/database]`. Shown without user and password.
#[derive(Clone)]
pub struct RedisUrl(ConnectionInfo);

/// A text that is no URL of a Redis. It does not repeat the text, which may hold a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be like `redis://user:password@host:6379/0`")]
pub struct RedisUrlFault;

impl FromStr for RedisUrl {
    type Err = RedisUrlFault;

    fn from_str(text: &str) -> Result<Self, RedisUrlFault> {
        let info = text.into_connection_info().map_err(|_| RedisUrlFault)?;
        // Nagle's delay would hold small commands back, and pub/sub connections speak RESP2 only.
        let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP2);
        let info = info
            .set_tcp_settings(TcpSettings::default().set_nodelay(true))
            .set_redis_settings(settings);
        Client::open(info.clone()).map_err(|_| RedisUrlFault)?;
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

/// How to reach Redis.
#[derive(Debug, Clone)]
pub struct RedisConfig {
    /// Where it is.
    pub url: RedisUrl,
    /// How long one call may take.
    pub timeout: Duration,
}

/// Why a call came to nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RedisFault {
    /// There is no connection at this moment; nothing was tried.
    #[error("Redis is away")]
    Away,
    /// No answer in time.
    #[error("Redis did not answer within {} ms", .0.as_millis())]
    Silent(Duration),
    /// The call went wrong.
    #[error("{0}")]
    Failed(String),
}

/// The waits between attempts to connect: doubling, with a bound.
pub(crate) struct Backoff(Duration);

impl Backoff {
    const FIRST: Duration = Duration::from_millis(50);
    const LONGEST: Duration = Duration::from_secs(1);

    pub(crate) fn new() -> Self {
        Self(Self::FIRST)
    }

    pub(crate) async fn wait(&mut self) {
        sleep(self.0).await;
        self.0 = (self.0 * 2).min(Self::LONGEST);
    }
}

/// The connection of the moment, if there is one.
#[derive(Default)]
struct Slot {
    connection: ArcSwapOption<MultiplexedConnection>,
    lost: Notify,
}

impl Slot {
    /// Gives a broken connection up, unless another one has taken its place already.
    fn give_up(&self, broken: &Arc<MultiplexedConnection>) {
        let before = self.connection.compare_and_swap(broken, None);
        if before.as_ref().is_some_and(|before| Arc::ptr_eq(before, broken)) {
            self.lost.notify_one();
        }
    }
}

/// A connection that is kept up in the background. Calls fail at once while there is none.
pub(crate) struct RedisLink {
    slot: Arc<Slot>,
    timeout: Duration,
    _keeper: AbortOnDropHandle<()>,
}

impl RedisLink {
    /// Begins to connect, and waits for the first attempt, whatever comes of it.
    pub(crate) async fn open(config: &RedisConfig) -> Self {
        let slot = Arc::new(Slot::default());
        let (tried, mut first_try) = watch::channel(());
        let keeper = tokio::spawn(keep_connected(config.url.clone(), Arc::clone(&slot), tried));
        // An error says that the keeper is gone, and then there is nothing to wait for.
        let _ = first_try.changed().await;
        Self { slot, timeout: config.timeout, _keeper: AbortOnDropHandle::new(keeper) }
    }

    /// Makes one call within the timeout, or fails at once when there is no connection.
    pub(crate) async fn call<T, F>(
        &self,
        run: impl FnOnce(MultiplexedConnection) -> F,
    ) -> Result<T, RedisFault>
    where
        F: Future<Output = RedisResult<T>>,
    {
        let Some(connection) = self.slot.connection.load_full() else {
            return Err(RedisFault::Away);
        };
        match timeout(self.timeout, run(MultiplexedConnection::clone(&connection))).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(fault)) => {
                if calls_for_another_connection(&fault) {
                    self.slot.give_up(&connection);
                }
                Err(RedisFault::Failed(fault.to_string()))
            }
            Err(_) => {
                self.slot.give_up(&connection);
                Err(RedisFault::Silent(self.timeout))
            }
        }
    }
}

/// Whether the connection, or the server at its other end, is of no more use. Other errors are about the call.
fn calls_for_another_connection(fault: &RedisError) -> bool {
    match fault.kind() {
        ErrorKind::Server(kind) => matches!(
            kind,
            ServerErrorKind::BusyLoading | ServerErrorKind::MasterDown | ServerErrorKind::ReadOnly
        ),
        ErrorKind::UnexpectedReturnType | ErrorKind::Extension => false,
        _ => true,
    }
}

async fn keep_connected(url: RedisUrl, slot: Arc<Slot>, tried: watch::Sender<()>) {
    let mut backoff = Backoff::new();
    let mut complained = false;
    loop {
        match connect(&url).await {
            Ok(connection) => {
                backoff = Backoff::new();
                complained = false;
                slot.connection.store(Some(Arc::new(connection)));
                tracing::info!(%url, "connected to Redis");
                tried.send_replace(());
                while slot.connection.load().is_some() {
                    slot.lost.notified().await;
                }
                tracing::warn!(%url, "lost the connection to Redis; connecting again");
            }
            Err(fault) => {
                if !complained {
                    tracing::warn!(%url, %fault, "cannot connect to Redis; trying on");
                    complained = true;
                }
                tried.send_replace(());
                backoff.wait().await;
            }
        }
    }
}

/// Connects and asks for a sign of life: a server that hangs accepts connections, too.
async fn connect(url: &RedisUrl) -> Result<MultiplexedConnection, RedisFault> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(None)
        .set_response_timeout(None)
        .set_pipeline_buffer_size(PIPELINE_BUFFER);
    let attempt = async {
        let mut connection =
            url.client()?.get_multiplexed_async_connection_with_config(&config).await?;
        let () = redis::cmd("PING").query_async(&mut connection).await?;
        Ok(connection)
    };
    match timeout(CONNECT_TIMEOUT, attempt).await {
        Ok(connected) => {
            connected.map_err(|fault: RedisError| RedisFault::Failed(fault.to_string()))
        }
        Err(_) => Err(RedisFault::Silent(CONNECT_TIMEOUT)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_shown_nowhere() {
        let url: RedisUrl = "redis://someone:secret-word@cache:6380/2".parse().unwrap();
        let config = RedisConfig { url: url.clone(), timeout: Duration::from_millis(50) };
        let shown = format!("{url} {url:?} {config:?}");
        assert!(shown.contains("cache:6380"), "{shown}");
        assert!(!shown.contains("secret-word") && !shown.contains("someone"), "{shown}");
        let fault = "reddis://someone:secret-word@cache:6380".parse::<RedisUrl>().unwrap_err();
        assert!(!format!("{fault} {fault:?}").contains("secret-word"));
    }

    #[test]
    fn what_is_no_url_of_a_redis_is_refused() {
        for text in ["", "redis://", "http://host:6379", "redis://host:notaport", "host:6379"] {
            assert_eq!(text.parse::<RedisUrl>().err(), Some(RedisUrlFault), "{text:?}");
        }
    }
}
