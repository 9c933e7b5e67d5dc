//! Reads the bounds of a topic's partitions, each with a request of its own to that partition's leader.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use async_trait::async_trait;
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
/// Requests of one client at the same time. Each blocks a thread, and the process has 512 of these.
const MAX_REQUESTS: usize = 128;

struct Client {
    consumer: BaseConsumer,
    requests: Arc<Semaphore>,
}

impl Client {
    fn create(config: &KafkaConfig, log: &LogRef) -> Result<Self, KafkaError> {
        let requests = Arc::new(Semaphore::new(MAX_REQUESTS));
        Ok(Self { consumer: create_consumer(config, log)?, requests })
    }
}

/// Reads the bounds of a topic's partitions.
#[derive(Clone)]
pub(super) struct KafkaBounds {
    config: KafkaConfig,
    log: LogRef,
    /// Replaced after an error, at most every [`BOUNDS_TIMEOUT`]: since it is never polled, it could not recover from the
    /// loss of all brokers.
    client: Arc<ArcSwap<Client>>,
    replaced_at: Arc<Mutex<Instant>>,
}

impl KafkaBounds {
    /// Creates it without a request to Kafka.
    pub fn start(config: &KafkaConfig, log: &LogRef) -> Result<Self, KafkaError> {
        let client = Arc::new(ArcSwap::from_pointee(Client::create(config, log)?));
        let replaced_at = Arc::new(Mutex::new(Instant::now()));
        Ok(Self { config: config.clone(), log: log.clone(), client, replaced_at })
    }

    /// Blocks until the partition's leader has answered.
    fn fetch(
        &self,
        client: &Weak<Client>,
        partition: PartitionId,
    ) -> Result<LogBounds, KafkaError> {
        let Some(used) = client.upgrade() else {
            return Err(KafkaError::Canceled);
        };
        let number = partition.0 as i32;
        let watermarks = used.consumer.fetch_watermarks(&self.log.topic, number, BOUNDS_TIMEOUT);
        if watermarks.is_err() {
            self.replace(client)?;
        }
        let (low, high) = watermarks?;
        Ok(LogBounds { low: Position(low.max(0) as u64), high: Position(high.max(0) as u64) })
    }

    /// Replaces a client that has failed, unless it was replaced already or another one was just now. Blocks: the drop of
    /// a client waits for its threads.
    fn replace(&self, failed: &Weak<Client>) -> Result<(), KafkaError> {
        let mut replaced_at = self.replaced_at.lock().unwrap_or_else(PoisonError::into_inner);
        let is_current = Arc::as_ptr(&self.client.load()) == failed.as_ptr();
        let former = if is_current && replaced_at.elapsed() >= BOUNDS_TIMEOUT {
            let former = self.client.swap(Arc::new(Client::create(&self.config, &self.log)?));
            *replaced_at = Instant::now();
            Some(former)
        } else {
            None
        };
        drop(replaced_at);
        drop(former);
        Ok(())
    }
}

#[async_trait]
impl BoundsReader for KafkaBounds {
    async fn bounds(&self, partition: PartitionId) -> Result<LogBounds, ReadError> {
        // Not a reference to the client: whoever drops the last one waits for its threads.
        let (client, requests) = {
            let client = self.client.load();
            (Arc::downgrade(&client), Arc::clone(&client.requests))
        };
        let permit = timeout(BOUNDS_TIMEOUT, requests.acquire_owned())
            .await
            .map_err(|_| ReadError::unavailable("too many requests wait for their leaders"))?
            .map_err(ReadError::unavailable)?;
        let (this, used) = (self.clone(), Weak::clone(&client));
        let fetched = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            this.fetch(&used, partition)
        });
        let Ok(fetched) = timeout(HUNG_AFTER, fetched).await else {
            let this = self.clone();
            tokio::task::spawn_blocking(move || {
                if let Err(error) = this.replace(&client) {
                    tracing::warn!(%error, "failed to replace a kafka client that has stopped");
                }
            });
            return Err(ReadError::unavailable("the kafka client has stopped"));
        };
        fetched.map_err(ReadError::unavailable)?.map_err(ReadError::unavailable)
    }
}
