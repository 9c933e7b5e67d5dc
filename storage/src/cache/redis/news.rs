//! News of every move: one pub/sub connection of its own for the whole process, passed on to all subscribers.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use redis::aio::{PubSubSink, PubSubStream};
use schemas::BudgetId;
use schemas::redis::UPDATES_CHANNEL;
use tokio::sync::{broadcast, watch};
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use crate::cache::CacheUpdate;
use crate::redis_connection::{Backoff, CONNECT_TIMEOUT, RedisFault, RedisUrl};

/// News that a slow subscriber may be behind before it is told that it missed some.
const BACKLOG: usize = 1_024;

/// How often a quiet connection is asked for a sign of life.
const PING_EVERY: Duration = Duration::from_secs(1);

/// Passes news on, and whether they come at all.
#[derive(Clone)]
struct Board {
    sender: broadcast::Sender<CacheUpdate>,
    /// Whether news come now. Changed and announced under the lock, so that the last announcement is the truth.
    hearing: Arc<Mutex<bool>>,
}

impl Board {
    fn set_hearing(&self, now: bool) {
        let mut hearing = self.hearing.lock().unwrap_or_else(PoisonError::into_inner);
        if *hearing != now {
            *hearing = now;
            self.announce(if now { CacheUpdate::Resumed } else { CacheUpdate::Interrupted });
        }
    }

    fn announce(&self, update: CacheUpdate) {
        // Nobody may be listening; that is no fault.
        let _ = self.sender.send(update);
    }

    fn subscribe(&self) -> broadcast::Receiver<CacheUpdate> {
        let hearing = self.hearing.lock().unwrap_or_else(PoisonError::into_inner);
        let receiver = self.sender.subscribe();
        if !*hearing {
            // The newcomer must know that it hears nothing yet. The others know, and hear it again.
            self.announce(CacheUpdate::Interrupted);
        }
        receiver
    }
}

/// The subscription of this process.
pub(super) struct News {
    board: Board,
    _listener: AbortOnDropHandle<()>,
}

impl News {
    /// Begins to listen, and waits for the first attempt, whatever comes of it.
    pub(super) async fn listen(url: &RedisUrl) -> Self {
        let board = Board { sender: broadcast::Sender::new(BACKLOG), hearing: Arc::default() };
        let (tried, mut first_try) = watch::channel(());
        let listener = tokio::spawn(keep_listening(url.clone(), board.clone(), tried));
        // An error says that the listener is gone, and then there is nothing to wait for.
        let _ = first_try.changed().await;
        Self { board, _listener: AbortOnDropHandle::new(listener) }
    }

    pub(super) fn subscribe(&self) -> broadcast::Receiver<CacheUpdate> {
        self.board.subscribe()
    }
}

async fn keep_listening(url: RedisUrl, board: Board, tried: watch::Sender<()>) {
    let mut backoff = Backoff::new();
    loop {
        match subscribe(&url).await {
            Ok((sink, stream)) => {
                backoff = Backoff::new();
                board.set_hearing(true);
                tried.send_replace(());
                tokio::select! {
                    () = pass_on(stream, &board) => {}
                    () = watch_for_silence(sink) => {}
                }
                board.set_hearing(false);
                tracing::warn!(%url, "lost the subscription to Redis; subscribing again");
            }
            Err(fault) => {
                tracing::debug!(%url, %fault, "cannot subscribe to Redis; trying on");
                tried.send_replace(());
                backoff.wait().await;
            }
        }
    }
}

async fn subscribe(url: &RedisUrl) -> Result<(PubSubSink, PubSubStream), RedisFault> {
    let attempt = async {
        let mut pubsub = url.client()?.get_async_pubsub().await?;
        pubsub.subscribe(UPDATES_CHANNEL).await?;
        Ok(pubsub.split())
    };
    match timeout(CONNECT_TIMEOUT, attempt).await {
        Ok(subscribed) => {
            subscribed.map_err(|fault: redis::RedisError| RedisFault::Failed(fault.to_string()))
        }
        Err(_) => Err(RedisFault::Silent(CONNECT_TIMEOUT)),
    }
}

/// Passes news on until the connection ends.
async fn pass_on(mut stream: PubSubStream, board: &Board) {
    while let Some(message) = stream.next().await {
        let budget = std::str::from_utf8(message.get_payload_bytes()).ok();
        match budget.and_then(|text| BudgetId::parse(text).ok()) {
            Some(budget) => board.announce(CacheUpdate::Moved(budget)),
            None => tracing::warn!("heard news of no budget on {UPDATES_CHANNEL}"),
        }
    }
}

/// Returns when the server gives no sign of life any more: a connection can be dead without being closed.
async fn watch_for_silence(mut sink: PubSubSink) {
    loop {
        sleep(PING_EVERY).await;
        let ping = sink.ping::<redis::Value>();
        if !matches!(timeout(CONNECT_TIMEOUT, ping).await, Ok(Ok(_))) {
            return;
        }
    }
}
