//! Reads the bounds of a topic's partitions, each with a request of its own to that partition's leader.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use parking_lot::Mutex;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use schemas::{LogRef, PartitionId, Position};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::KafkaConfig;
use super::consumer::create_consumer;
use crate::log::{BoundsReader, LogBounds, ReadError};

/// How long a request waits for a partition's leader.
const BOUNDS_TIMEOUT: Duration = Duration::from_secs(5);
/// A request that takes longer hangs: the machine's clock, by which librdkafka waits, went back.
const HUNG_AFTER: Duration = Duration::from_secs(12);
/// Requests at the same time. Each blocks a thread for up to [`BOUNDS_TIMEOUT`], and the process has 512 of these.
const MAX_REQUESTS: usize = 256;

/// Reads the bounds of a topic's partitions.
#[derive(Clone)]
pub(super) struct KafkaBounds {
    config: KafkaConfig,
    log: LogRef,
    /// Replaced after an error, at most every [`BOUNDS_TIMEOUT`]: since it is never polled, it could not recover from the
    /// loss of all brokers.
    client: Arc<ArcSwap<Client>>,
    replaced_at: Arc<Mutex<Instant>>,
    requests: Arc<Semaphore>,
}

/// A client that is dropped on a thread of its own: a drop waits for the client's threads, for as long as the machine's
/// clock went back.
struct Client(Option<BaseConsumer>);

impl Client {
    fn create(config: &KafkaConfig, log: &LogRef) -> Result<Self, KafkaError> {
        Ok(Self(Some(create_consumer(config, log)?)))
    }

    /// Blocks until the partition's leader has answered.
    fn fetch_watermarks(&self, topic: &str, partition: u32) -> Result<(i64, i64), KafkaError> {
        let consumer = self.0.as_ref().ok_or(KafkaError::Canceled)?;
        consumer.fetch_watermarks(topic, partition as i32, BOUNDS_TIMEOUT)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let consumer = self.0.take();
        let thread = std::thread::Builder::new().name("kafka-drop".into());
        if let Err(error) = thread.spawn(move || drop(consumer)) {
            tracing::warn!(%error, "failed to spawn the thread that drops a kafka client");
        }
    }
}

impl KafkaBounds {
    /// Creates it without a request to Kafka.
    pub fn start(config: &KafkaConfig, log: &LogRef) -> Result<Self, KafkaError> {
        let client = Arc::new(ArcSwap::from_pointee(Client::create(config, log)?));
        let replaced_at = Arc::new(Mutex::new(Instant::now()));
        let requests = Arc::new(Semaphore::new(MAX_REQUESTS));
        Ok(Self { config: config.clone(), log: log.clone(), client, replaced_at, requests })
    }

    /// Blocks until the partition's leader has answered.
    fn fetch(&self, client: &Arc<Client>, partition: PartitionId) -> Result<LogBounds, KafkaError> {
        let watermarks = client.fetch_watermarks(&self.log.topic, partition.0);
        if watermarks.is_err() {
            self.replace(client)?;
        }
        let (low, high) = watermarks?;
        Ok(LogBounds { low: Position(low.max(0) as u64), high: Position(high.max(0) as u64) })
    }

    /// Replaces a client that has failed, unless it was replaced already or another one was just now.
    fn replace(&self, failed: &Arc<Client>) -> Result<(), KafkaError> {
        let mut replaced_at = self.replaced_at.lock();
        if Arc::ptr_eq(failed, &self.client.load()) && replaced_at.elapsed() >= BOUNDS_TIMEOUT {
            self.client.store(Arc::new(Client::create(&self.config, &self.log)?));
            *replaced_at = Instant::now();
        }
        Ok(())
    }
}

#[async_trait]
impl BoundsReader for KafkaBounds {
    async fn bounds(&self, partition: PartitionId) -> Result<LogBounds, ReadError> {
        // Held until the answer or until the request is given up, whatever its thread does then.
        let _permit = timeout(HUNG_AFTER, self.requests.acquire())
            .await
            .map_err(|_| ReadError::unavailable("too many requests wait for leaders"))?
            .map_err(ReadError::unavailable)?;
        let (this, client) = (self.clone(), self.client.load_full());
        let used = Arc::clone(&client);
        let fetched = tokio::task::spawn_blocking(move || this.fetch(&used, partition));
        let Ok(fetched) = timeout(HUNG_AFTER, fetched).await else {
            self.replace(&client).map_err(ReadError::unavailable)?;
            return Err(ReadError::unavailable("the kafka client has stopped"));
        };
        fetched.map_err(ReadError::unavailable)?.map_err(ReadError::unavailable)
    }
}
