//! One idempotent client: sends records, and collects one result per record of a batch. Which records go through which
//! client is the `producer` module's.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::client::Client;
use rdkafka::error::KafkaError;
use rdkafka::message::{DeliveryResult, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext, PurgeConfig};
use rdkafka::{ClientContext, Statistics};
use schemas::Offset;
use tokio::sync::Notify;

use super::connection_watch::ConnectionWatch;
use super::seal::is_sealed_rejection;
use super::{KafkaConfig, Rebootstrap};
use crate::log::AppendError;

/// How long the polling thread handles acknowledgements before it looks whether the producer was dropped.
///
/// Long, since rdkafka spins in the last millisecond: it waits whole milliseconds.
const POLL_TIMEOUT: Duration = Duration::from_secs(1);

/// librdkafka's timeout as a multiple of ours. Only records whose caller was dropped can get that old.
const LIBRDKAFKA_TIMEOUT_FACTOR: u32 = 20;

/// Bounds a batch, and a record that is alone in one: what a topic has to accept.
pub(super) const MAX_BATCH_BYTES: u64 = 1_000_000;

/// A record to send. librdkafka copies its bytes.
pub(crate) struct Outgoing<'a> {
    pub partition: u32,
    pub key: &'a [u8],
    pub value: &'a [u8],
    pub headers: Option<OwnedHeaders>,
}

/// A producer and the thread that polls it for acknowledgements.
///
/// Not rdkafka's `ThreadedProducer`: its drop joins a thread that waits by wall-clock time. After the clock was set
/// back, the process could not exit.
pub(super) struct PolledProducer {
    producer: Arc<BaseProducer<DeliveryContext>>,
    dropped: Arc<AtomicBool>,
}

impl PolledProducer {
    /// Starts a client without a request to Kafka.
    pub fn start(config: &KafkaConfig) -> Result<Self, KafkaError> {
        let producer: Arc<BaseProducer<DeliveryContext>> = Arc::new(
            config
                .client()
                .set("enable.idempotence", "true")
                .set("acks", "all")
                .set(
                    "message.timeout.ms",
                    (config.delivery_timeout * LIBRDKAFKA_TIMEOUT_FACTOR).as_millis().to_string(),
                )
                .set("linger.ms", config.linger.as_millis().to_string())
                .set("batch.num.messages", "20000")
                .set("batch.size", MAX_BATCH_BYTES.to_string())
                .set("message.max.bytes", MAX_BATCH_BYTES.to_string())
                .set("queue.buffering.max.messages", "400000")
                .set("queue.buffering.max.kbytes", "262144")
                .set("statistics.interval.ms", Rebootstrap::STATISTICS_INTERVAL_MS)
                .create_with_context(DeliveryContext {
                    rebootstrap: Rebootstrap::new(&config.brokers)?,
                    connections: ConnectionWatch::default(),
                })?,
        );
        let dropped = Arc::new(AtomicBool::new(false));
        let (polled, ended) = (Arc::clone(&producer), Arc::clone(&dropped));
        std::thread::Builder::new()
            .name("kafka-acks".into())
            .spawn(move || {
                while !ended.load(Ordering::Relaxed) {
                    polled.poll(POLL_TIMEOUT);
                    polled.context().rebootstrap.restore_brokers(polled.client());
                }
            })
            .map_err(|error| KafkaError::ClientCreation(error.to_string()))?;
        Ok(Self { producer, dropped })
    }

    pub fn client(&self) -> &Client<DeliveryContext> {
        self.producer.client()
    }

    /// Whether the client has failed fatally: librdkafka's idempotent producer cannot be used after that.
    pub fn has_failed(&self) -> bool {
        self.client().fatal_error().is_some()
    }

    /// Whether the client has stopped, as it does when the machine's clock goes back (`connection_watch`).
    pub fn has_stopped(&self) -> bool {
        let connections = &self.producer.context().connections;
        connections.is_stuck() || connections.is_silent(Instant::now())
    }

    /// Enqueues a record, whose result the batch gets.
    pub fn send(&self, topic: &str, record: Outgoing<'_>, batch: &Arc<Batch>, index: usize) {
        let delivery = Box::new(Delivery { batch: Arc::clone(batch), index });
        let mut kafka_record = BaseRecord::with_opaque_to(topic, delivery)
            .partition(record.partition as i32)
            .key(record.key)
            .payload(record.value);
        kafka_record.headers = record.headers;
        if let Err((error, refused)) = self.producer.send(kafka_record) {
            // Rejected before it was queued: it is certainly not in the log.
            refused.delivery_opaque.complete(Err(AppendError::Unavailable(error.to_string())));
        }
    }

    /// Forgets all unacknowledged records: none of them is sent again.
    pub fn purge(&self) {
        self.producer.purge(PurgeConfig::default().queue().inflight().non_blocking());
    }
}

impl Drop for PolledProducer {
    fn drop(&mut self) {
        self.dropped.store(true, Ordering::Relaxed);
    }
}

pub(super) struct DeliveryContext {
    rebootstrap: Rebootstrap,
    connections: ConnectionWatch,
}

impl ClientContext for DeliveryContext {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "kafka producer error");
    }

    fn stats(&self, statistics: Statistics) {
        self.rebootstrap.check(&statistics);
        self.connections.check(&statistics);
    }
}

impl ProducerContext for DeliveryContext {
    type DeliveryOpaque = Box<Delivery>;

    fn delivery(&self, result: &DeliveryResult<'_>, delivery: Box<Delivery>) {
        delivery.complete(match result {
            // librdkafka has no offset for a record that the broker detected as a duplicate.
            Ok(message) => u64::try_from(message.offset())
                .map(Offset)
                .map_err(|_| AppendError::Unknown("acknowledged without an offset".into())),
            Err((error, _)) if is_sealed_rejection(error) => Err(AppendError::Sealed),
            // The record may have been in flight: the binding does not expose librdkafka's message status.
            Err((error, _)) => Err(AppendError::Unknown(error.to_string())),
        });
    }
}

/// One record's index in its batch, for the delivery callback.
pub(super) struct Delivery {
    batch: Arc<Batch>,
    index: usize,
}

impl Delivery {
    fn complete(self, result: Result<Offset, AppendError>) {
        self.batch.complete(self.index, result);
    }
}

/// Collects the results of one batch.
pub(super) struct Batch {
    results: Mutex<BatchResults>,
    all_completed: Notify,
}

struct BatchResults {
    results: Vec<Option<Result<Offset, AppendError>>>,
    missing: usize,
}

impl Batch {
    pub fn new(len: usize) -> Self {
        Self {
            results: Mutex::new(BatchResults { results: vec![None; len], missing: len }),
            all_completed: Notify::new(),
        }
    }

    pub fn complete(&self, index: usize, result: Result<Offset, AppendError>) {
        let mut batch = self.results.lock();
        // After a timeout the results have been taken, and this one is too late.
        if let Some(slot) = batch.results.get_mut(index) {
            *slot = Some(result);
            batch.missing -= 1;
            if batch.missing == 0 {
                self.all_completed.notify_one();
            }
        }
    }

    /// Waits until every record has a result.
    pub async fn completed(&self) {
        let missing = self.results.lock().missing;
        if missing > 0 {
            self.all_completed.notified().await;
        }
    }

    /// Takes the results. The outcome of a record without a result is unknown.
    pub fn take(&self) -> Vec<Result<Offset, AppendError>> {
        std::mem::take(&mut self.results.lock().results)
            .into_iter()
            .map(|result| {
                result.unwrap_or_else(|| {
                    Err(AppendError::Unknown("the acknowledgement timed out".into()))
                })
            })
            .collect()
    }
}
