//! Reads the bounds of a topic's partitions, each with a request of its own to that partition's leader.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use schemas::{LogRef, PartitionId, Position};

use super::KafkaConfig;
use super::consumer::create_consumer;
use crate::log::{BoundsReader, LogBounds, ReadError};

/// How long a request waits for a partition's leader.
const BOUNDS_TIMEOUT: Duration = Duration::from_secs(5);
/// A request that takes longer hangs: the machine's clock, by which librdkafka waits, went back.
const HUNG_AFTER: Duration = Duration::from_secs(12);

/// Reads the bounds of a topic's partitions.
#[derive(Clone)]
pub(super) struct KafkaBounds {
    config: KafkaConfig,
    log: LogRef,
    /// Replaced after an error, at most every [`BOUNDS_TIMEOUT`]: since it is never polled, it could not recover from the
    /// loss of all brokers.
    client: Arc<ArcSwap<BaseConsumer>>,
    replaced_at: Arc<Mutex<Instant>>,
}

impl KafkaBounds {
    /// Creates it without a request to Kafka.
    pub fn start(config: &KafkaConfig, log: &LogRef) -> Result<Self, KafkaError> {
        let client = Arc::new(ArcSwap::from_pointee(create_consumer(config, log)?));
        let replaced_at = Arc::new(Mutex::new(Instant::now()));
        Ok(Self { config: config.clone(), log: log.clone(), client, replaced_at })
    }

    /// Blocks until the partition's leader has answered.
    fn fetch(&self, partition: PartitionId) -> Result<LogBounds, KafkaError> {
        let client = self.client.load_full();
        let number = partition.0 as i32;
        let watermarks = client.fetch_watermarks(&self.log.topic, number, BOUNDS_TIMEOUT);
        if watermarks.is_err() {
            self.replace(&client)?;
        }
        let (low, high) = watermarks?;
        Ok(LogBounds { low: Position(low.max(0) as u64), high: Position(high.max(0) as u64) })
    }

    /// Replaces a client that has failed, unless it was replaced already or another one was just now.
    fn replace(&self, failed: &Arc<BaseConsumer>) -> Result<(), KafkaError> {
        let mut replaced_at = self.replaced_at.lock().unwrap_or_else(PoisonError::into_inner);
        if Arc::ptr_eq(failed, &self.client.load()) && replaced_at.elapsed() >= BOUNDS_TIMEOUT {
            self.client.store(Arc::new(create_consumer(&self.config, &self.log)?));
            *replaced_at = Instant::now();
        }
        Ok(())
    }
}

#[async_trait]
impl BoundsReader for KafkaBounds {
    async fn bounds(&self, partition: PartitionId) -> Result<LogBounds, ReadError> {
        let (this, client) = (self.clone(), self.client.load_full());
        let fetched = tokio::task::spawn_blocking(move || this.fetch(partition));
        let Ok(fetched) = tokio::time::timeout(HUNG_AFTER, fetched).await else {
            self.replace(&client).map_err(ReadError::unavailable)?;
            return Err(ReadError::unavailable("the kafka client has stopped"));
        };
        fetched.map_err(ReadError::unavailable)?.map_err(ReadError::unavailable)
    }
}
