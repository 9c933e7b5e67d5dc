//! Appends dead letters to their topic.

use std::sync::Arc;

use async_trait::async_trait;
use rdkafka::message::{Header, OwnedHeaders};
use schemas::RecordAddress;

use super::KafkaConfig;
use super::producer::{IdempotentProducer, Outgoing};
use super::topic_error::TopicError;
use crate::log::{AppendError, DeadLetter, DeadLetterWriter};

/// Maximum bytes of a key or value in a dead letter; longer ones are truncated, so that a broker always accepts it. The
/// whole record is in the log, at the dead letter's source.
const MAX_PART_BYTES: usize = 400_000;

/// Appends to the topic of dead letters. A dead letter has the address of its record and the reason in the headers
/// `log`, `partition`, `offset` and `reason`, and the record's lengths in `key_bytes` and `value_bytes`.
pub struct KafkaDeadLetterWriter {
    producer: Arc<IdempotentProducer>,
}

impl KafkaDeadLetterWriter {
    /// Starts a producer. The topic must exist: [`KafkaLogWriter::open`](super::KafkaLogWriter::open) and
    /// [`KafkaSource::open`](super::KafkaSource::open) create it.
    ///
    /// # Errors
    /// When the Kafka client cannot be created.
    pub fn open(config: &KafkaConfig) -> Result<Self, TopicError> {
        Ok(Self { producer: IdempotentProducer::start(config, config.dead_letters_topic())? })
    }
}

#[async_trait]
impl DeadLetterWriter for KafkaDeadLetterWriter {
    async fn append(&self, letters: &[DeadLetter]) -> Result<(), AppendError> {
        let outgoing = letters.iter().map(|letter| Outgoing {
            partition: 0,
            key: letter.key.get(..MAX_PART_BYTES).unwrap_or(&letter.key),
            value: letter.value.get(..MAX_PART_BYTES).unwrap_or(&letter.value),
            headers: Some(headers(letter)),
        });
        self.producer.send(outgoing).await.into_iter().try_for_each(|result| result.map(drop))
    }
}

/// Returns the headers with a dead letter's address, which every entry of the topic has.
pub(super) fn address_headers(source: RecordAddress) -> OwnedHeaders {
    OwnedHeaders::new()
        .insert(Header { key: "log", value: Some(&source.log.to_string()) })
        .insert(Header { key: "partition", value: Some(&source.partition.to_string()) })
        .insert(Header { key: "offset", value: Some(&source.offset.to_string()) })
}

fn headers(letter: &DeadLetter) -> OwnedHeaders {
    address_headers(letter.source)
        .insert(Header { key: "reason", value: Some(&letter.reason) })
        .insert(Header { key: "key_bytes", value: Some(&letter.key.len().to_string()) })
        .insert(Header { key: "value_bytes", value: Some(&letter.value.len().to_string()) })
}
