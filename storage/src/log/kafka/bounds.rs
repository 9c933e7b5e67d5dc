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
use super::client_threads::DropOnThread;
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

type Client = DropOnThread<BaseConsumer>;

fn create(config: &KafkaConfig, log: &LogRef) -> Result<Client, KafkaError> {
    Ok(DropOnThread::new(create_consumer(config, log)?))
}

impl KafkaBounds {
    /// Creates it without a request to Kafka. Blocks until the client's threads run.
    pub fn start(config: &KafkaConfig, log: &LogRef) -> Result<Self, KafkaError> {
        let client = Arc::new(ArcSwap::from_pointee(create(config, log)?));
        let replaced_at = Arc::new(Mutex::new(Instant::now()));
        let requests = Arc::new(Semaphore::new(MAX_REQUESTS));
        Ok(Self { config: config.clone(), log: log.clone(), client, replaced_at, requests })
    }

    /// Blocks until the partition's leader has answered.
    fn fetch(&self, client: &Arc<Client>, partition: PartitionId) -> Result<LogBounds, KafkaError> {
        let watermarks =
            client.fetch_watermarks(&self.log.topic, partition.0 as i32, BOUNDS_TIMEOUT);
        if watermarks.is_err() {
            self.replace(client)?;
        }
        let (low, high) = watermarks?;
        Ok(LogBounds { low: Position(low.max(0) as u64), high: Position(high.max(0) as u64) })
    }

    /// Replaces a client that has failed, unless it was replaced already or another one was just now. Blocks until the
    /// threads of the new client run.
    fn replace(&self, failed: &Arc<Client>) -> Result<(), KafkaError> {
        // Another thread replaces the client now.
        let Some(mut replaced_at) = self.replaced_at.try_lock() else { return Ok(()) };
        if Arc::ptr_eq(failed, &self.client.load()) && replaced_at.elapsed() >= BOUNDS_TIMEOUT {
            self.client.store(Arc::new(create(&self.config, &self.log)?));
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
            let this = self.clone();
            // A client that cannot be replaced now is replaced after the next request.
            let thread = std::thread::Builder::new().name("kafka-replace".into());
            let replacing = thread.spawn(move || {
                if let Err(error) = this.replace(&client) {
                    tracing::warn!(%error, "failed to replace a kafka client that has stopped");
                }
            });
            replacing.map_err(ReadError::unavailable)?;
            return Err(ReadError::unavailable("the kafka client has stopped"));
        };
        fetched.map_err(ReadError::unavailable)?.map_err(ReadError::unavailable)
    }
}
