//! Reads stretches of the topic as no member of a group.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Message, Offset as KafkaOffset, TopicPartitionList};
use schemas::{Offset, PartitionCount, PartitionId, Position};
use tokio::sync::watch;

use super::KafkaConfig;
use super::topics::{TopicError, check_topic, log_identity};
use crate::log::gapless::{self, Gapless, Wanted};
use crate::log::{LogBounds, LogIdentity, LogReader, ReadError, Record, Stretch};

const BOUNDS_TIMEOUT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(100);
/// Without a record for so long, Kafka counts as away.
const PATIENCE: Duration = Duration::from_secs(15);

/// A reader of the topic of submissions.
pub struct KafkaReader {
    config: KafkaConfig,
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
    pub async fn open(config: &KafkaConfig) -> Result<Self, TopicError> {
        check_topic(config).await?;
        let identity = log_identity(config).await?;
        let asking = consumer(config).map_err(|error| TopicError::Unavailable {
            brokers: config.brokers.clone(),
            reason: error.to_string(),
        })?;
        let asking = Arc::new(ArcSwap::from_pointee(asking));
        Ok(Self { config: config.clone(), identity, asking })
    }
}

fn consumer(config: &KafkaConfig) -> Result<BaseConsumer, KafkaError> {
    config
        .client()
        // Needed by the client; it joins no group, and nothing is ever committed to it.
        .set("group.id", format!("{}-readers", config.topic))
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
        self.config.partitions
    }

    fn identity(&self) -> LogIdentity {
        self.identity.clone()
    }

    async fn bounds(&self, partition: PartitionId) -> Result<LogBounds, ReadError> {
        let (asking, config) = (Arc::clone(&self.asking), self.config.clone());
        let asked = tokio::task::spawn_blocking(move || {
            let (client, number) = (asking.load_full(), partition.0 as i32);
            let bounds = client.fetch_watermarks(&config.topic, number, BOUNDS_TIMEOUT);
            if bounds.is_err() {
                asking.store(Arc::new(consumer(&config)?));
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
        let config = self.config.clone();
        gapless::stretch(partition, start, end, move |records| follow(&config, partition, records))
    }
}

fn follow(
    config: &KafkaConfig,
    partition: PartitionId,
    records: &mut Gapless<'_>,
) -> Result<(), ReadError> {
    let Wanted::Record(first) = records.until_wanted() else { return Ok(()) };
    let consumer = consumer(config).map_err(ReadError::unavailable)?;
    let mut start = TopicPartitionList::new();
    start
        .add_partition_offset(
            &config.topic,
            partition.0 as i32,
            KafkaOffset::Offset(first.0 as i64),
        )
        .map_err(ReadError::unavailable)?;
    consumer.assign(&start).map_err(ReadError::unavailable)?;
    let mut next = Wanted::Record(first);
    let mut last_record = Instant::now();
    loop {
        let position = match next {
            Wanted::Record(position) => position,
            Wanted::Later => {
                next = records.until_wanted();
                last_record = Instant::now();
                continue;
            }
            Wanted::Nothing => return Ok(()),
        };
        match consumer.poll(POLL) {
            Some(Ok(message)) => {
                last_record = Instant::now();
                next = records.push(Record {
                    offset: Offset(message.offset().max(0) as u64),
                    key: message.key().unwrap_or_default(),
                    value: message.payload().unwrap_or_default(),
                })?;
            }
            Some(Err(error)) if is_out_of_range(&error) => {
                return Err(ReadError::Missing(position));
            }
            // librdkafka mends the rest by itself, or does not in time.
            Some(Err(error)) if last_record.elapsed() > PATIENCE => {
                return Err(ReadError::unavailable(error));
            }
            None if last_record.elapsed() > PATIENCE => {
                return Err(ReadError::unavailable(format!(
                    "no record came in {} s",
                    PATIENCE.as_secs()
                )));
            }
            // Whether anybody still waits for them.
            Some(Err(_)) | None => next = records.next(),
        }
    }
}

fn is_out_of_range(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange)
    )
}
