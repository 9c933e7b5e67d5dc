//! The dead letter journal on Kafka: the topic of dead letters, which also holds the decisions.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Header, Headers, Message};
use rdkafka::{Offset as KafkaOffset, TopicPartitionList};
use schemas::{LogNumber, Offset, PartitionId, RecordAddress};
use tokio::sync::{OnceCell, mpsc};

use super::KafkaConfig;
use super::client_threads::create_client;
use super::dead_letter_writer::address_headers;
use super::keep_awake::keep_awake;
use super::producer::{IdempotentProducer, Outgoing};
use crate::log::reader_thread::spawn_reader;
use crate::log::{
    AppendError, DeadLetterJournal, DeadLetterMeta, Decision, JournalEntry, ReadError,
};

const POLL_TIMEOUT: Duration = Duration::from_millis(100);
/// Without a record for this long, Kafka counts as unavailable.
const READ_TIMEOUT: Duration = Duration::from_secs(15);
/// Entries that may wait for the receiver.
const STREAM_CAPACITY: usize = 1_000;
const DECISION_HEADER: &str = "decision";
/// Longer reasons, which this program never writes, are truncated.
const MAX_REASON_CHARS: usize = 1_000;

/// Reads the topic of dead letters, and appends decisions to it.
pub struct KafkaDeadLetterJournal {
    config: KafkaConfig,
    /// Started at the first decision.
    producer: OnceCell<Arc<IdempotentProducer>>,
}

impl KafkaDeadLetterJournal {
    /// Creates a journal without connecting to Kafka.
    pub fn new(config: &KafkaConfig) -> Self {
        Self { config: config.clone(), producer: OnceCell::new() }
    }

    async fn producer(&self) -> Result<&Arc<IdempotentProducer>, AppendError> {
        let start =
            |config: &KafkaConfig| IdempotentProducer::start(config, config.dead_letters_topic());
        let started = self.producer.get_or_try_init(|| create_client(&self.config, start)).await;
        started.map_err(|error| AppendError::Unavailable(error.to_string()))
    }
}

#[async_trait]
impl DeadLetterJournal for KafkaDeadLetterJournal {
    fn entries(&self) -> mpsc::Receiver<Result<JournalEntry, ReadError>> {
        let config = self.config.clone();
        spawn_reader(STREAM_CAPACITY, move |entries| read_all(&config, entries))
    }

    async fn decide(&self, letter: RecordAddress, decision: Decision) -> Result<(), AppendError> {
        let decision = serde_json::to_vec(&decision)
            .map_err(|error| AppendError::Unavailable(error.to_string()))?;
        let headers =
            address_headers(letter).insert(Header { key: DECISION_HEADER, value: Some(&decision) });
        let outgoing = Outgoing { partition: 0, key: &[], value: &[], headers: Some(headers) };
        let producer = self.producer().await?;
        let sent = producer.send(std::iter::once(outgoing)).await;
        sent.into_iter().try_for_each(|result| result.map(drop))
    }
}

/// Keeps the expected end of the partition out of the error log.
struct JournalReaderContext;

impl ClientContext for JournalReaderContext {
    fn error(&self, error: KafkaError, reason: &str) {
        // `poll` returns the errors that matter; librdkafka recovers from the others by itself.
        tracing::debug!(%error, reason, "dead letter journal client error");
    }
}

impl ConsumerContext for JournalReaderContext {}

fn read_all(
    config: &KafkaConfig,
    entries: &mpsc::Sender<Result<JournalEntry, ReadError>>,
) -> Result<(), ReadError> {
    let topic = config.dead_letters_topic();
    let consumer: BaseConsumer<JournalReaderContext> = config
        .client()
        // Required by the client, which joins no group and commits nothing.
        .set("group.id", format!("{topic}.readers"))
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("fetch.wait.max.ms", "100")
        .create_with_context(JournalReaderContext)
        .map_err(ReadError::unavailable)?;
    let mut start = TopicPartitionList::new();
    start
        .add_partition_offset(&topic, 0, KafkaOffset::Beginning)
        .map_err(ReadError::unavailable)?;
    consumer.assign(&start).map_err(ReadError::unavailable)?;
    keep_awake(&consumer, || poll_to_end(&consumer, entries))
}

fn poll_to_end(
    consumer: &BaseConsumer<JournalReaderContext>,
    entries: &mpsc::Sender<Result<JournalEntry, ReadError>>,
) -> Result<(), ReadError> {
    let mut last_record_at = Instant::now();
    while !entries.is_closed() {
        match consumer.poll(POLL_TIMEOUT) {
            Some(Ok(message)) => {
                last_record_at = Instant::now();
                let entry = parse_entry(&message).unwrap_or(JournalEntry::Foreign);
                let _ = entries.blocking_send(Ok(entry));
            }
            Some(Err(KafkaError::PartitionEOF(_))) => return Ok(()),
            Some(Err(error)) if last_record_at.elapsed() > READ_TIMEOUT => {
                return Err(ReadError::unavailable(error));
            }
            None if last_record_at.elapsed() > READ_TIMEOUT => {
                return Err(ReadError::unavailable(format!(
                    "no record arrived within {} s",
                    READ_TIMEOUT.as_secs()
                )));
            }
            // librdkafka retries by itself.
            Some(Err(_)) | None => {}
        }
    }
    Ok(())
}

/// Parses an entry; `None` if another program wrote it.
fn parse_entry(message: &BorrowedMessage<'_>) -> Option<JournalEntry> {
    let headers = message.headers()?;
    let text = |name: &str| {
        let header = headers.iter().find(|header| header.key == name)?;
        std::str::from_utf8(header.value?).ok()
    };
    let letter = RecordAddress {
        log: LogNumber(text("log")?.parse().ok()?),
        partition: PartitionId(text("partition")?.parse().ok()?),
        offset: Offset(text("offset")?.parse().ok()?),
    };
    if let Some(decision) = text(DECISION_HEADER) {
        return Some(JournalEntry::Decision(letter, Decision::parse(decision)));
    }
    let meta = DeadLetterMeta {
        reason: text("reason")?.chars().take(MAX_REASON_CHARS).collect(),
        key_bytes: text("key_bytes")?.parse().ok()?,
        value_bytes: text("value_bytes")?.parse().ok()?,
        appended_at_ms: message.timestamp().to_millis().unwrap_or_default().max(0) as u64,
    };
    Some(JournalEntry::DeadLetter(letter, meta))
}
