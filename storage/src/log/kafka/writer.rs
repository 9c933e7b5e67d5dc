//! Submissions and dead letters on their way into their topics.

use std::sync::Arc;

use async_trait::async_trait;
use rdkafka::message::{Header, OwnedHeaders};
use schemas::{Offset, PartitionCount};

use super::KafkaConfig;
use super::producer::{IdempotentProducer, Outgoing};
use super::topics::{TopicError, ensure_topics};
use crate::log::{AppendError, DeadLetter, DeadLetters, LogWriter, NewRecord};

/// The topic of submissions, for appending.
pub struct KafkaLog {
    producer: Arc<IdempotentProducer>,
    partitions: PartitionCount,
}

impl KafkaLog {
    /// Creates the topics if they are absent and starts a producer.
    ///
    /// # Errors
    /// When Kafka does not answer, or the topic has another partition count than the generation.
    pub async fn open(config: &KafkaConfig) -> Result<Self, TopicError> {
        ensure_topics(config).await?;
        Self::open_unchecked(config)
    }

    /// Starts a producer without asking Kafka anything: the topics must exist and be right.
    ///
    /// # Errors
    /// When the client cannot be made.
    pub fn open_unchecked(config: &KafkaConfig) -> Result<Self, TopicError> {
        Ok(Self { producer: start(config, config.topic.clone())?, partitions: config.partitions })
    }
}

pub(super) fn start(
    config: &KafkaConfig,
    topic: String,
) -> Result<Arc<IdempotentProducer>, TopicError> {
    IdempotentProducer::new(config, topic).map_err(|error| TopicError::Unavailable {
        brokers: config.brokers.clone(),
        reason: error.to_string(),
    })
}

#[async_trait]
impl LogWriter for KafkaLog {
    fn partitions(&self) -> PartitionCount {
        self.partitions
    }

    async fn append(&self, records: Vec<NewRecord>) -> Vec<Result<Offset, AppendError>> {
        let outgoing = records.iter().map(|record| Outgoing {
            partition: record.partition.0,
            key: record.key.as_bytes(),
            value: &record.value,
            headers: None,
        });
        self.producer.send(outgoing).await
    }

    fn available(&self) -> Result<(), AppendError> {
        self.producer.available()
    }
}

/// Of a key and of a value at most so much is put into a letter, so that it is never more than a broker takes. The
/// whole record is where the letter says that it came from.
const LARGEST_PART: usize = 400_000;

/// The topic of dead letters. A letter carries its source in the headers `partition`, `offset` and `reason`, and the
/// record's lengths in `key_bytes` and `value_bytes`.
pub struct KafkaDeadLetters {
    producer: Arc<IdempotentProducer>,
}

impl KafkaDeadLetters {
    /// Starts a producer. The topic must exist: [`KafkaLog::open`] and [`super::KafkaSource::open`] see to it.
    ///
    /// # Errors
    /// When the client cannot be made.
    pub fn open(config: &KafkaConfig) -> Result<Self, TopicError> {
        Ok(Self { producer: start(config, config.dead_letters_topic())? })
    }
}

#[async_trait]
impl DeadLetters for KafkaDeadLetters {
    async fn put(&self, letters: &[DeadLetter]) -> Result<(), AppendError> {
        let outgoing = letters.iter().map(|letter| Outgoing {
            partition: 0,
            key: letter.key.get(..LARGEST_PART).unwrap_or(&letter.key),
            value: letter.value.get(..LARGEST_PART).unwrap_or(&letter.value),
            headers: Some(headers(letter)),
        });
        self.producer.send(outgoing).await.into_iter().collect::<Result<Vec<_>, _>>().map(|_| ())
    }
}

fn headers(letter: &DeadLetter) -> OwnedHeaders {
    OwnedHeaders::new()
        .insert(Header { key: "partition", value: Some(&letter.partition.to_string()) })
        .insert(Header { key: "offset", value: Some(&letter.offset.to_string()) })
        .insert(Header { key: "reason", value: Some(&letter.reason) })
        .insert(Header { key: "key_bytes", value: Some(&letter.key.len().to_string()) })
        .insert(Header { key: "value_bytes", value: Some(&letter.value.len().to_string()) })
}
