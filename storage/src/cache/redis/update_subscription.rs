//! The subscription to cache updates: one pub/sub connection per process, which feeds all local subscribers.

use std::sync::Arc;
use std::time::Duration;

use backon::Retryable;
use futures_util::StreamExt;
use parking_lot::Mutex;
use redis::aio::{PubSubSink, PubSubStream};
use schemas::BudgetId;
use schemas::redis::UPDATES_CHANNEL;
use tokio::sync::{broadcast, watch};
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use crate::cache::{CacheUpdate, MAX_PENDING_UPDATES};
use crate::redis_connection::{CONNECT_TIMEOUT, RedisCallError, RedisUrl, reconnect_backoff};

/// How often the connection is checked by a ping.
const PING_INTERVAL: Duration = Duration::from_secs(1);

/// Broadcasts updates to local subscribers, and whether the connection delivers them.
#[derive(Clone)]
struct UpdateBroadcaster {
    sender: broadcast::Sender<CacheUpdate>,
    /// Whether the connection is up. Changed and broadcast under the lock, so that the last broadcast is the truth.
    connected: Arc<Mutex<bool>>,
}

impl UpdateBroadcaster {
    fn set_connected(&self, now: bool) {
        let mut connected = self.connected.lock();
        if *connected != now {
            *connected = now;
            self.broadcast(if now { CacheUpdate::Resumed } else { CacheUpdate::Interrupted });
        }
    }

    fn broadcast(&self, update: CacheUpdate) {
        // A send fails only when there are no subscribers.
        let _ = self.sender.send(update);
    }

    fn subscribe(&self) -> broadcast::Receiver<CacheUpdate> {
        let connected = self.connected.lock();
        let receiver = self.sender.subscribe();
        if !*connected {
            // For the new subscriber; the others receive it a second time, which is harmless.
            self.broadcast(CacheUpdate::Interrupted);
        }
        receiver
    }
}

/// This process's subscription to cache updates.
pub(super) struct UpdateSubscription {
    broadcaster: UpdateBroadcaster,
    _task: AbortOnDropHandle<()>,
}

impl UpdateSubscription {
    /// Starts the subscription in the background. Waits until the first attempt has succeeded or failed.
    pub(super) async fn start(url: &RedisUrl) -> Self {
        let broadcaster = UpdateBroadcaster {
            sender: broadcast::Sender::new(MAX_PENDING_UPDATES),
            connected: Arc::default(),
        };
        let (attempted, mut first_attempt) = watch::channel(());
        let task = tokio::spawn(keep_subscribed(url.clone(), broadcaster.clone(), attempted));
        // An error means that the task has ended, and then there is nothing to wait for.
        let _ = first_attempt.changed().await;
        Self { broadcaster, _task: AbortOnDropHandle::new(task) }
    }

    pub(super) fn subscribe(&self) -> broadcast::Receiver<CacheUpdate> {
        self.broadcaster.subscribe()
    }
}

async fn keep_subscribed(
    url: RedisUrl,
    broadcaster: UpdateBroadcaster,
    attempted: watch::Sender<()>,
) {
    loop {
        let subscribed = (|| subscribe(&url)).retry(reconnect_backoff()).notify(|error, pause| {
            let retry_in_ms = pause.as_millis() as u64;
            tracing::debug!(%url, %error, retry_in_ms, "redis subscription failed, retrying");
            attempted.send_replace(());
        });
        // The backoff has no last attempt.
        let Ok((sink, stream)) = subscribed.await else { continue };
        broadcaster.set_connected(true);
        attempted.send_replace(());
        tokio::select! {
            () = forward_updates(stream, &broadcaster) => {}
            () = ping_until_unresponsive(sink) => {}
        }
        broadcaster.set_connected(false);
        tracing::warn!(%url, "redis subscription lost, resubscribing");
    }
}

async fn subscribe(url: &RedisUrl) -> Result<(PubSubSink, PubSubStream), RedisCallError> {
    let attempt = async {
        let mut pubsub = url.client()?.get_async_pubsub().await?;
        pubsub.subscribe(UPDATES_CHANNEL).await?;
        Ok(pubsub.split())
    };
    match timeout(CONNECT_TIMEOUT, attempt).await {
        Ok(subscribed) => {
            subscribed.map_err(|error: redis::RedisError| RedisCallError::failed(&error))
        }
        Err(_) => Err(RedisCallError::TimedOut(CONNECT_TIMEOUT)),
    }
}

/// Forwards updates to local subscribers until the connection ends.
async fn forward_updates(mut stream: PubSubStream, broadcaster: &UpdateBroadcaster) {
    while let Some(message) = stream.next().await {
        let budget = std::str::from_utf8(message.get_payload_bytes()).ok();
        match budget.and_then(|text| BudgetId::parse(text).ok()) {
            Some(budget) => broadcaster.broadcast(CacheUpdate::Changed(budget)),
            None => {
                tracing::warn!(channel = UPDATES_CHANNEL, "ignored an update without a budget id")
            }
        }
    }
}

/// Pings the server until a ping fails: a dead connection need not be closed.
async fn ping_until_unresponsive(mut sink: PubSubSink) {
    loop {
        sleep(PING_INTERVAL).await;
        let ping = sink.ping::<redis::Value>();
        if !matches!(timeout(CONNECT_TIMEOUT, ping).await, Ok(Ok(_))) {
            return;
        }
    }
}
