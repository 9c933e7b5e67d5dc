//! Reads ranges of a topic without joining a group.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Message, Offset as KafkaOffset, TopicPartitionList};
use schemas::{LogRef, Offset, PartitionCount, PartitionId, Position};
use tokio::sync::watch;

use super::KafkaConfig;
use super::bounds::KafkaBounds;
use super::client_threads::create_client;
use super::cluster::log_identity;
use super::consumer::{create_consumer, is_out_of_range};
use super::keep_awake::keep_awake;
use super::topic_error::TopicError;
use super::topics::check_topic;
use crate::log::contiguous_batcher::{ContiguousBatcher, spawn_record_stream};
use crate::log::{
    BoundsReader, LogBounds, LogIdentity, LogReader, ReadError, Record, RecordStream,
};

const POLL_TIMEOUT: Duration = Duration::from_millis(100);
/// Without a requested record for this long, Kafka counts as unavailable.
const READ_TIMEOUT: Duration = Duration::from_secs(15);

/// Reads a topic of submissions.
pub struct KafkaReader {
    config: KafkaConfig,
    log: LogRef,
    identity: LogIdentity,
    bounds: KafkaBounds,
}

impl KafkaReader {
    /// Opens a log and fetches its identity. Creates nothing.
    ///
    /// # Errors
    /// When Kafka is unavailable, or the topic does not exist or has another partition count than the log.
    pub async fn open(config: &KafkaConfig, log: &LogRef) -> Result<Self, TopicError> {
        check_topic(config, log).await?;
        let identity = log_identity(config).await?;
        let own = log.clone();
        let bounds = create_client(config, move |config| {
            KafkaBounds::start(config, &own).map_err(|error| TopicError::unavailable(config, error))
        });
        let bounds = bounds.await?;
        Ok(Self { config: config.clone(), log: log.clone(), identity, bounds })
    }
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
        self.bounds.bounds(partition).await
    }

    fn follow(
        &self,
        partition: PartitionId,
        start: Position,
        end: watch::Receiver<Position>,
    ) -> RecordStream {
        let (config, log) = (self.config.clone(), self.log.clone());
        let follow =
            move |records: &mut ContiguousBatcher<'_>| follow(&config, &log, partition, records);
        spawn_record_stream(partition, start, end, follow)
    }
}

fn follow(
    config: &KafkaConfig,
    log: &LogRef,
    partition: PartitionId,
    records: &mut ContiguousBatcher<'_>,
) -> Result<(), ReadError> {
    let Some(first) = records.wait_for_request() else { return Ok(()) };
    let consumer = create_consumer(config, log).map_err(ReadError::unavailable)?;
    let mut start = TopicPartitionList::new();
    start
        .add_partition_offset(&log.topic, partition.0 as i32, KafkaOffset::Offset(first.0 as i64))
        .map_err(ReadError::unavailable)?;
    consumer.assign(&start).map_err(ReadError::unavailable)?;
    keep_awake(&consumer, || poll_requested(&consumer, first, records))
}

/// Polls for the records that are requested, from `first` on, until no more are.
fn poll_requested(
    consumer: &BaseConsumer,
    first: Position,
    records: &mut ContiguousBatcher<'_>,
) -> Result<(), ReadError> {
    let (mut awaited, mut awaited_since) = (first, Instant::now());
    // Checked before each poll, since the receiver may have been dropped.
    while let Some(position) = records.wait_for_request() {
        if position != awaited {
            (awaited, awaited_since) = (position, Instant::now());
        }
        match consumer.poll(POLL_TIMEOUT) {
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
            // librdkafka retries all other errors by itself.
            Some(Err(error)) if awaited_since.elapsed() > READ_TIMEOUT => {
                return Err(ReadError::unavailable(error));
            }
            None if awaited_since.elapsed() > READ_TIMEOUT => {
                return Err(ReadError::unavailable(format!(
                    "no record arrived within {} s",
                    READ_TIMEOUT.as_secs()
                )));
            }
            Some(Err(_)) | None => {}
        }
    }
    Ok(())
}
