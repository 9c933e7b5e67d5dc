//! The book of dead letters: their topic, read from its start; decisions are records beside the letters.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Header, Headers, Message, OwnedHeaders};
use rdkafka::{Offset as KafkaOffset, TopicPartitionList};
use schemas::{LogNumber, Offset, PartitionId, Receipt};
use tokio::sync::{OnceCell, mpsc};

use super::KafkaConfig;
use super::producer::{IdempotentProducer, Outgoing};
use super::writer::start;
use crate::log::background::in_background;
use crate::log::{AppendError, Decision, Entry, LetterBook, PutAway, ReadError};

const POLL: Duration = Duration::from_millis(100);
/// Without a word for so long, Kafka counts as away.
const PATIENCE: Duration = Duration::from_secs(15);
const ENTRIES_AHEAD: usize = 1_000;
const DECISION: &str = "decision";
/// So much of a reason is kept: nobody of ours writes a longer one.
const REASON_MAX_CHARS: usize = 1_000;

/// The topic of dead letters, for operators.
pub struct KafkaLetterBook {
    config: KafkaConfig,
    /// Started once something is decided: who only looks needs none.
    producer: OnceCell<Arc<IdempotentProducer>>,
}

impl KafkaLetterBook {
    /// Asks Kafka nothing yet.
    pub fn new(config: &KafkaConfig) -> Self {
        Self { config: config.clone(), producer: OnceCell::new() }
    }

    async fn producer(&self) -> Result<&Arc<IdempotentProducer>, AppendError> {
        let start = async || start(&self.config, self.config.dead_letters_topic());
        let started = self.producer.get_or_try_init(start).await;
        started.map_err(|error| AppendError::Unavailable(error.to_string()))
    }
}

#[async_trait]
impl LetterBook for KafkaLetterBook {
    fn entries(&self) -> mpsc::Receiver<Result<Entry, ReadError>> {
        let config = self.config.clone();
        in_background(ENTRIES_AHEAD, move |entries| read_all(&config, entries))
    }

    async fn decide(&self, letter: Receipt, decision: Decision) -> Result<(), AppendError> {
        let decision = serde_json::to_vec(&decision)
            .map_err(|error| AppendError::Unavailable(error.to_string()))?;
        let headers = OwnedHeaders::new()
            .insert(Header { key: "log", value: Some(&letter.log.to_string()) })
            .insert(Header { key: "partition", value: Some(&letter.partition.to_string()) })
            .insert(Header { key: "offset", value: Some(&letter.offset.to_string()) })
            .insert(Header { key: DECISION, value: Some(&decision) });
        let outgoing = Outgoing { partition: 0, key: &[], value: &[], headers: Some(headers) };
        let producer = self.producer().await?;
        producer
            .send(std::iter::once(outgoing))
            .await
            .into_iter()
            .collect::<Result<Vec<_>, _>>()?;
        Ok(())
    }
}

fn read_all(
    config: &KafkaConfig,
    entries: &mpsc::Sender<Result<Entry, ReadError>>,
) -> Result<(), ReadError> {
    let topic = config.dead_letters_topic();
    let consumer: BaseConsumer = config
        .client()
        // Needed by the client; it joins no group, and nothing is ever committed to it.
        .set("group.id", format!("{topic}.readers"))
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("fetch.wait.max.ms", "100")
        .create()
        .map_err(ReadError::unavailable)?;
    let mut start = TopicPartitionList::new();
    start
        .add_partition_offset(&topic, 0, KafkaOffset::Beginning)
        .map_err(ReadError::unavailable)?;
    consumer.assign(&start).map_err(ReadError::unavailable)?;
    let mut last_word = Instant::now();
    while !entries.is_closed() {
        match consumer.poll(POLL) {
            Some(Ok(message)) => {
                last_word = Instant::now();
                let entry = entry(&message).unwrap_or(Entry::Foreign);
                let _ = entries.blocking_send(Ok(entry));
            }
            Some(Err(KafkaError::PartitionEOF(_))) => return Ok(()),
            Some(Err(error)) if last_word.elapsed() > PATIENCE => {
                return Err(ReadError::unavailable(error));
            }
            None if last_word.elapsed() > PATIENCE => {
                return Err(ReadError::unavailable(format!(
                    "nothing came in {} s",
                    PATIENCE.as_secs()
                )));
            }
            // librdkafka mends what it can by itself.
            Some(Err(_)) | None => {}
        }
    }
    Ok(())
}

/// `None` for what nobody of ours wrote.
fn entry(message: &BorrowedMessage<'_>) -> Option<Entry> {
    let headers = message.headers()?;
    let text = |name: &str| {
        let header = headers.iter().find(|header| header.key == name)?;
        std::str::from_utf8(header.value?).ok()
    };
    let letter = Receipt {
        log: LogNumber(text("log")?.parse().ok()?),
        partition: PartitionId(text("partition")?.parse().ok()?),
        offset: Offset(text("offset")?.parse().ok()?),
    };
    if let Some(decision) = text(DECISION) {
        return Some(Entry::Decided(letter, serde_json::from_str(decision).ok()?));
    }
    let put_away = PutAway {
        reason: text("reason")?.chars().take(REASON_MAX_CHARS).collect(),
        key_bytes: text("key_bytes")?.parse().ok()?,
        value_bytes: text("value_bytes")?.parse().ok()?,
        put_at_ms: message.timestamp().to_millis().unwrap_or_default().max(0) as u64,
    };
    Some(Entry::Letter(letter, put_away))
}
