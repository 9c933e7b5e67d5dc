//! Reads stretches of the topic as no member of a group.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Message, Offset as KafkaOffset, TopicPartitionList};
use schemas::{LogRef, Offset, PartitionCount, PartitionId, Position};
use tokio::sync::watch;

use super::KafkaConfig;
use super::topics::{TopicError, check_topic, log_identity};
use crate::log::gapless::{self, Gapless};
use crate::log::{LogBounds, LogIdentity, LogReader, ReadError, Record, Stretch};

const BOUNDS_TIMEOUT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(100);
/// Without a record for so long, Kafka counts as away.
const PATIENCE: Duration = Duration::from_secs(15);

/// A reader of a topic of submissions.
pub struct KafkaReader {
    config: KafkaConfig,
    log: LogRef,
    identity: LogIdentity,
    /// Asks for bounds; each stretch has one of its own. Replaced when it had no answer: nobody polls it, so that it
    /// could not be mended had it lost every broker.
    asking: Arc<ArcSwap<BaseConsumer>>,
}

impl KafkaReader {
    /// Finds out which log this is. Creates nothing.
    ///
    /// # Errors
    /// When Kafka does not answer, or the topic is not there or has another partition count than the generation.
    pub async fn open(config: &KafkaConfig, log: &LogRef) -> Result<Self, TopicError> {
        check_topic(config, log).await?;
        let identity = log_identity(config).await?;
        let asking = consumer(config, log).map_err(|error| TopicError::Unavailable {
            brokers: config.brokers.clone(),
            reason: error.to_string(),
        })?;
        let asking = Arc::new(ArcSwap::from_pointee(asking));
        Ok(Self { config: config.clone(), log: log.clone(), identity, asking })
    }
}

fn consumer(config: &KafkaConfig, log: &LogRef) -> Result<BaseConsumer, KafkaError> {
    config
        .client()
        // Needed by the client; it joins no group, and nothing is ever committed to it.
        .set("group.id", format!("{}-readers", log.topic))
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "error")
        .set("fetch.wait.max.ms", "100")
        .set("queued.max.messages.kbytes", "4096")
        .create()
}

#[async_trait]
impl LogReader for KafkaReader {
    fn partitions(&self) -> PartitionCount {
        self.log.partitions
    }

    fn identity(&self) -> LogIdentity {
        self.identity.clone()
    }

    async fn bounds(&self, partition: PartitionId) -> Result<LogBounds, ReadError> {
        let asking = Arc::clone(&self.asking);
        let (config, log) = (self.config.clone(), self.log.clone());
        let asked = tokio::task::spawn_blocking(move || {
            let (client, number) = (asking.load_full(), partition.0 as i32);
            let bounds = client.fetch_watermarks(&log.topic, number, BOUNDS_TIMEOUT);
            if bounds.is_err() {
                asking.store(Arc::new(consumer(&config, &log)?));
            }
            bounds
        });
        let (low, high) =
            asked.await.map_err(ReadError::unavailable)?.map_err(ReadError::unavailable)?;
        Ok(LogBounds { low: Position(low.max(0) as u64), high: Position(high.max(0) as u64) })
    }

    fn follow(
        &self,
        partition: PartitionId,
        start: Position,
        end: watch::Receiver<Position>,
    ) -> Stretch {
        let (config, log) = (self.config.clone(), self.log.clone());
        let follow = move |records: &mut Gapless<'_>| follow(&config, &log, partition, records);
        gapless::stretch(partition, start, end, follow)
    }
}

fn follow(
    config: &KafkaConfig,
    log: &LogRef,
    partition: PartitionId,
    records: &mut Gapless<'_>,
) -> Result<(), ReadError> {
    let Some(first) = records.wanted() else { return Ok(()) };
    let consumer = consumer(config, log).map_err(ReadError::unavailable)?;
    let mut start = TopicPartitionList::new();
    start
        .add_partition_offset(&log.topic, partition.0 as i32, KafkaOffset::Offset(first.0 as i64))
        .map_err(ReadError::unavailable)?;
    consumer.assign(&start).map_err(ReadError::unavailable)?;
    let (mut missed, mut missed_since) = (first, Instant::now());
    // Asked before each look, as somebody may have ceased to wait for it.
    while let Some(position) = records.wanted() {
        if position != missed {
            (missed, missed_since) = (position, Instant::now());
        }
        match consumer.poll(POLL) {
            Some(Ok(message)) => {
                records.push(Record {
                    offset: Offset(message.offset().max(0) as u64),
                    key: message.key().unwrap_or_default(),
                    value: message.payload().unwrap_or_default(),
                })?;
            }
            Some(Err(error)) if is_out_of_range(&error) => {
                return Err(ReadError::Missing(position));
            }
            // librdkafka mends the rest by itself, or does not in time.
            Some(Err(error)) if missed_since.elapsed() > PATIENCE => {
                return Err(ReadError::unavailable(error));
            }
            None if missed_since.elapsed() > PATIENCE => {
                return Err(ReadError::unavailable(format!(
                    "no record came in {} s",
                    PATIENCE.as_secs()
                )));
            }
            Some(Err(_)) | None => {}
        }
    }
    Ok(())
}

fn is_out_of_range(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange)
    )
}
