//! The idempotent producer: sends batches of records, and returns one result per record within a bound.
//!
//! Owns the behaviour while Kafka is unavailable: the first batches wait for the delivery timeout, then batches fail at
//! once until a probe succeeds. Does not know what the records mean.
//!
//! **A record whose batch has timed out is never sent again.** If librdkafka timed a record out by itself, it would start
//! a new producer epoch and resend its other records under that epoch, and the broker could no longer detect those that it
//! has already as duplicates. So librdkafka's own timeout is too long to be reached, and a batch that times out purges all
//! unacknowledged records from librdkafka.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use rdkafka::error::KafkaError;
use rdkafka::message::{DeliveryResult, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext, PurgeConfig};
use rdkafka::{ClientContext, Statistics};
use schemas::Offset;
use tokio::sync::Notify;

use super::seal::is_sealed_rejection;
use super::topics::TopicError;
use super::{KafkaConfig, Rebootstrap};
use crate::log::AppendError;

const PROBE_INTERVAL: Duration = Duration::from_millis(250);
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the polling thread waits for an acknowledgement.
const POLL_TIMEOUT: Duration = Duration::from_millis(100);

/// librdkafka's timeout as a multiple of ours. Only records whose caller was dropped can get that old.
const LIBRDKAFKA_TIMEOUT_FACTOR: u32 = 20;

/// A record to send. librdkafka copies its bytes.
pub(super) struct Outgoing<'a> {
    pub partition: u32,
    pub key: &'a [u8],
    pub value: &'a [u8],
    pub headers: Option<OwnedHeaders>,
}

pub(super) struct IdempotentProducer {
    config: KafkaConfig,
    topic: String,
    /// Replaced after a fatal error: librdkafka's idempotent producer cannot be used after one.
    producer: ArcSwap<PolledProducer>,
    unavailable: AtomicBool,
    probing: AtomicBool,
}

impl IdempotentProducer {
    /// Starts a producer into a topic, without a request to Kafka.
    pub fn start(config: &KafkaConfig, topic: String) -> Result<Arc<Self>, TopicError> {
        let producer = PolledProducer::start(config)
            .map_err(|error| TopicError::unavailable(config, error))?;
        Ok(Arc::new(Self {
            producer: ArcSwap::from_pointee(producer),
            config: config.clone(),
            topic,
            unavailable: AtomicBool::new(false),
            probing: AtomicBool::new(false),
        }))
    }

    pub fn available(&self) -> Result<(), AppendError> {
        if self.unavailable.load(Ordering::Relaxed) {
            return Err(AppendError::Unavailable("Kafka does not respond".into()));
        }
        Ok(())
    }

    /// Sends records, and returns their offsets within the delivery timeout.
    pub async fn send<'a>(
        self: &Arc<Self>,
        records: impl ExactSizeIterator<Item = Outgoing<'a>>,
    ) -> Vec<Result<Offset, AppendError>> {
        if let Err(error) = self.available() {
            self.start_probing();
            return vec![Err(error); records.len()];
        }
        let batch = Arc::new(Batch::new(records.len()));
        self.enqueue(records, &batch);

        let _ = tokio::time::timeout(self.config.delivery_timeout, batch.completed()).await;
        let results = batch.take();
        // A sealed topic answers every record: none of them is still in flight.
        if results.iter().any(|result| !matches!(result, Ok(_) | Err(AppendError::Sealed))) {
            self.unavailable.store(true, Ordering::Relaxed);
            let all = PurgeConfig::default().queue().inflight().non_blocking();
            self.producer.load().producer.purge(all);
            self.start_probing();
        }
        results
    }

    fn enqueue<'a>(&self, records: impl Iterator<Item = Outgoing<'a>>, batch: &Arc<Batch>) {
        let polled = self.producer.load();
        for (index, record) in records.enumerate() {
            let delivery = Box::new(Delivery { batch: Arc::clone(batch), index });
            let mut kafka_record = BaseRecord::with_opaque_to(&self.topic, delivery)
                .partition(record.partition as i32)
                .key(record.key)
                .payload(record.value);
            kafka_record.headers = record.headers;
            if let Err((error, refused)) = polled.producer.send(kafka_record) {
                // Rejected before it was queued: the only case in which the record is certainly not in the log.
                refused.delivery_opaque.complete(Err(AppendError::Unavailable(error.to_string())));
            }
        }
    }

    /// Starts a thread that probes Kafka until it answers or the producer is dropped.
    fn start_probing(self: &Arc<Self>) {
        if self.probing.swap(true, Ordering::AcqRel) {
            return;
        }
        let this = Arc::downgrade(self);
        let spawned =
            std::thread::Builder::new().name("kafka-probe".into()).spawn(move || probe(&this));
        if let Err(error) = spawned {
            tracing::error!(%error, "failed to spawn the kafka probe thread");
            self.probing.store(false, Ordering::Release);
            // The next batch takes the place of the probe: without either, appends would never resume.
            self.unavailable.store(false, Ordering::Relaxed);
        }
    }

    /// Replaces a producer that has failed fatally, and sends a request to Kafka.
    fn recover(&self) -> Result<(), KafkaError> {
        if self.producer.load().producer.client().fatal_error().is_some() {
            self.producer.store(Arc::new(PolledProducer::start(&self.config)?));
        }
        let client = self.producer.load();
        client.producer.client().fetch_metadata(Some(&self.topic), PROBE_TIMEOUT).map(|_| ())
    }
}

fn probe(producer: &Weak<IdempotentProducer>) {
    while let Some(producer) = producer.upgrade() {
        match producer.recover() {
            Ok(()) => {
                producer.probing.store(false, Ordering::Release);
                producer.unavailable.store(false, Ordering::Relaxed);
                tracing::info!(topic = producer.topic, "kafka producer is available again");
                return;
            }
            Err(error) => {
                let retry_in_ms = PROBE_INTERVAL.as_millis() as u64;
                tracing::warn!(%error, topic = producer.topic, retry_in_ms, "kafka probe failed, retrying");
            }
        }
        drop(producer);
        std::thread::sleep(PROBE_INTERVAL);
    }
}

/// A producer and the thread that polls it for acknowledgements.
///
/// Not rdkafka's `ThreadedProducer`: its drop joins a thread that waits by wall-clock time. After the clock was set back,
/// the process could not exit.
struct PolledProducer {
    producer: Arc<BaseProducer<DeliveryContext>>,
    dropped: Arc<AtomicBool>,
}

impl PolledProducer {
    fn start(config: &KafkaConfig) -> Result<Self, KafkaError> {
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
                .set("batch.size", "1000000")
                .set("queue.buffering.max.messages", "400000")
                .set("queue.buffering.max.kbytes", "262144")
                .set("statistics.interval.ms", Rebootstrap::STATISTICS_INTERVAL_MS)
                .create_with_context(DeliveryContext {
                    rebootstrap: Rebootstrap::new(&config.brokers)?,
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
}

impl Drop for PolledProducer {
    fn drop(&mut self) {
        self.dropped.store(true, Ordering::Relaxed);
    }
}

struct DeliveryContext {
    rebootstrap: Rebootstrap,
}

impl ClientContext for DeliveryContext {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "kafka producer error");
    }

    fn stats(&self, statistics: Statistics) {
        self.rebootstrap.check(&statistics);
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
struct Delivery {
    batch: Arc<Batch>,
    index: usize,
}

impl Delivery {
    fn complete(self, result: Result<Offset, AppendError>) {
        self.batch.complete(self.index, result);
    }
}

/// Collects the results of one batch.
struct Batch {
    results: Mutex<BatchResults>,
    all_completed: Notify,
}

struct BatchResults {
    results: Vec<Option<Result<Offset, AppendError>>>,
    missing: usize,
}

impl Batch {
    fn new(len: usize) -> Self {
        Self {
            results: Mutex::new(BatchResults { results: vec![None; len], missing: len }),
            all_completed: Notify::new(),
        }
    }

    fn complete(&self, index: usize, result: Result<Offset, AppendError>) {
        let mut batch = self.lock();
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
    async fn completed(&self) {
        let missing = self.lock().missing;
        if missing > 0 {
            self.all_completed.notified().await;
        }
    }

    /// Takes the results. The outcome of a record without a result is unknown.
    fn take(&self) -> Vec<Result<Offset, AppendError>> {
        std::mem::take(&mut self.lock().results)
            .into_iter()
            .map(|result| {
                result.unwrap_or_else(|| {
                    Err(AppendError::Unknown("the acknowledgement timed out".into()))
                })
            })
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, BatchResults> {
        self.results.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
