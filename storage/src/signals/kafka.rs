//! Signals on Kafka: a topic of one partition, which keeps them for seven days.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Message, Offset, TopicPartitionList};
use schemas::{BudgetId, SIGNAL_MAX_BYTES, Signal};
use tokio::sync::{OnceCell, mpsc};

use super::{
    MAX_BATCH_SIGNALS, READ_AHEAD_BATCHES, SignalBatch, SignalEraser, SignalErasure, SignalQuery,
    SignalReader, SignalStream, SignalWriter,
};
use crate::log::kafka::client_threads::create_client;
use crate::log::kafka::keep_awake::keep_awake;
use crate::log::kafka::producer::{IdempotentProducer, Outgoing};
use crate::log::kafka::topics::ensure_signals_topic;
use crate::log::kafka::{KafkaConfig, TopicError};
use crate::log::reader_thread::spawn_reader;
use crate::log::{AppendError, ReadError};

const POLL_TIMEOUT: Duration = Duration::from_millis(100);
/// How long a request for metadata or offsets may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Without a record for this long, Kafka counts as unavailable.
const READ_TIMEOUT: Duration = Duration::from_secs(15);
/// Records that are read before a batch is returned, even if it is empty: the receiver may have been dropped.
const MAX_BATCH_RECORDS: u64 = 20_000;
/// The only partition.
const PARTITION: i32 = 0;

/// Appends signals to their topic, which the first append creates.
pub struct KafkaSignalWriter {
    config: KafkaConfig,
    producer: OnceCell<Arc<IdempotentProducer>>,
}

impl KafkaSignalWriter {
    /// Creates a writer without a request to Kafka.
    pub fn new(config: &KafkaConfig) -> Self {
        Self { config: config.clone(), producer: OnceCell::new() }
    }

    async fn producer(&self) -> Result<&Arc<IdempotentProducer>, TopicError> {
        let start = async || {
            ensure_signals_topic(&self.config).await?;
            let start =
                |config: &KafkaConfig| IdempotentProducer::start(config, config.signals_topic());
            create_client(&self.config, start).await
        };
        self.producer.get_or_try_init(start).await
    }
}

#[async_trait]
impl SignalWriter for KafkaSignalWriter {
    async fn append(&self, signals: &[Signal]) -> Result<(), AppendError> {
        let producer =
            self.producer().await.map_err(|error| AppendError::Unavailable(error.to_string()))?;
        let values: Vec<Vec<u8>> = signals.iter().map(Signal::encode).collect();
        let outgoing = values.iter().map(|value| Outgoing {
            partition: PARTITION as u32,
            key: &[],
            value,
            headers: None,
        });
        producer.send(outgoing).await.into_iter().try_for_each(|result| result.map(drop))
    }

    /// Does nothing: the broker deletes old signals.
    async fn expire(&self, _now_ms: u64) -> Result<bool, AppendError> {
        Ok(false)
    }
}

#[async_trait]
impl SignalEraser for KafkaSignalWriter {
    async fn erase(&self, _budget: &BudgetId) -> Result<SignalErasure, AppendError> {
        Ok(SignalErasure::AwaitsRetention)
    }
}

/// Reads the topic of signals.
pub struct KafkaSignalReader {
    config: KafkaConfig,
}

impl KafkaSignalReader {
    /// Creates a reader without a request to Kafka.
    pub fn new(config: &KafkaConfig) -> Self {
        Self { config: config.clone() }
    }
}

impl SignalReader for KafkaSignalReader {
    fn read(&self, query: SignalQuery) -> SignalStream {
        let (config, query) = (self.config.clone(), query.within_retention());
        spawn_reader(READ_AHEAD_BATCHES, move |batches| read(&config, &query, batches))
    }
}

/// Keeps the client's own errors out of the error log.
struct SignalReaderContext;

impl ClientContext for SignalReaderContext {
    fn error(&self, error: KafkaError, reason: &str) {
        // `poll` returns the errors that matter; librdkafka recovers from the others by itself.
        tracing::debug!(%error, reason, "signal reader client error");
    }
}

impl ConsumerContext for SignalReaderContext {}

fn read(
    config: &KafkaConfig,
    query: &SignalQuery,
    batches: &mpsc::Sender<Result<SignalBatch, ReadError>>,
) -> Result<(), ReadError> {
    let topic = config.signals_topic();
    let consumer: BaseConsumer<SignalReaderContext> = config
        .client()
        // Required by the client, which joins no group and commits nothing.
        .set("group.id", format!("{topic}.readers"))
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest")
        .set("fetch.wait.max.ms", "100")
        .set("queued.max.messages.kbytes", "4096")
        .create_with_context(SignalReaderContext)
        .map_err(ReadError::unavailable)?;
    let Some((first, end)) = offsets(&consumer, &topic, query)? else { return Ok(()) };
    let mut start = TopicPartitionList::new();
    start
        .add_partition_offset(&topic, PARTITION, Offset::Offset(first))
        .map_err(ReadError::unavailable)?;
    consumer.assign(&start).map_err(ReadError::unavailable)?;
    keep_awake(&consumer, || poll_to(&consumer, first..end, query, batches))
}

/// Polls for the signals with these offsets.
fn poll_to(
    consumer: &BaseConsumer<SignalReaderContext>,
    Range { start: first, end }: Range<i64>,
    query: &SignalQuery,
    batches: &mpsc::Sender<Result<SignalBatch, ReadError>>,
) -> Result<(), ReadError> {
    let progress = |next: i64| (next.abs_diff(first), end.abs_diff(first));
    let (mut next, mut signals, mut batch_from, mut last_record_at) =
        (first, Vec::new(), first, Instant::now());
    while next < end && !batches.is_closed() {
        match consumer.poll(POLL_TIMEOUT) {
            Some(Ok(message)) => {
                last_record_at = Instant::now();
                next = message.offset().saturating_add(1);
                if message.offset() < end {
                    let value = message.payload().filter(|value| value.len() <= SIGNAL_MAX_BYTES);
                    let signal = value.and_then(|value| Signal::decode(value).ok());
                    signals.extend(signal.filter(|signal| query.wants(signal)));
                }
            }
            Some(Err(error)) if last_record_at.elapsed() > READ_TIMEOUT => {
                return Err(ReadError::unavailable(error));
            }
            None if last_record_at.elapsed() > READ_TIMEOUT => {
                return Err(ReadError::unavailable(format!(
                    "no signal arrived within {} s",
                    READ_TIMEOUT.as_secs()
                )));
            }
            // librdkafka retries by itself.
            Some(Err(_)) | None => {}
        }
        if signals.len() >= MAX_BATCH_SIGNALS
            || next.abs_diff(batch_from) >= MAX_BATCH_RECORDS
            || next >= end
        {
            batch_from = next;
            let (done, total) = progress(next);
            let batch = SignalBatch { signals: std::mem::take(&mut signals), done, total };
            let _ = batches.blocking_send(Ok(batch));
        }
    }
    Ok(())
}

/// Returns the offsets of the first signal of a time span and of the end; `None` if there is nothing to read.
fn offsets(
    consumer: &BaseConsumer<SignalReaderContext>,
    topic: &str,
    query: &SignalQuery,
) -> Result<Option<(i64, i64)>, ReadError> {
    let fetched = consumer.fetch_watermarks(topic, PARTITION, REQUEST_TIMEOUT);
    let (low, end) = match fetched {
        Ok(watermarks) => watermarks,
        // No signal has been appended ever.
        Err(error) if is_unknown_topic(&error) => return Ok(None),
        Err(error) => return Err(ReadError::unavailable(error)),
    };
    if low >= end {
        return Ok(None);
    }
    // A record is appended after the acceptance, so that none of the span is before the first record of that time.
    let from_ms = i64::try_from(query.accepted_ms.start).unwrap_or(i64::MAX);
    let mut times = TopicPartitionList::new();
    times
        .add_partition_offset(topic, PARTITION, Offset::Offset(from_ms))
        .map_err(ReadError::unavailable)?;
    let found =
        consumer.offsets_for_times(times, REQUEST_TIMEOUT).map_err(ReadError::unavailable)?;
    let partition = found.find_partition(topic, PARTITION);
    match partition.map(|partition| (partition.error(), partition.offset())) {
        Some((Ok(()), Offset::Offset(first))) if first < end => Ok(Some((first.max(low), end))),
        // All records are older.
        Some((Ok(()), _)) => Ok(None),
        Some((Err(error), _)) => Err(ReadError::unavailable(error)),
        None => Err(ReadError::unavailable("Kafka returned no offset for the time span")),
    }
}

fn is_unknown_topic(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::UnknownTopic
                | RDKafkaErrorCode::UnknownPartition
        )
    )
}
