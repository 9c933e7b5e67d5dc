//! The idempotent producer: batches of records in, an answer for each within a bound.
//!
//! Owns what happens when Kafka is away: the first batches wait out the delivery timeout, then everything is refused
//! at once until a probe finds Kafka back. Does not know what the records are.
//!
//! **Nothing is sent again that nobody waits for any more.** Were librdkafka to give up a record by itself, it would go on
//! under a new epoch, and send what else it has again under that: records that the broker may have, and that it can no
//! longer know for repetitions. So librdkafka's own timeout is out of reach, and whoever gives up takes everything that is
//! not acknowledged out of librdkafka's hands.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext, PurgeConfig};
use rdkafka::{ClientContext, Statistics};
use schemas::Offset;
use tokio::sync::Notify;

use super::{KafkaConfig, Rebootstrap};
use crate::log::AppendError;

const PROBE_INTERVAL: Duration = Duration::from_millis(250);
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the thread of acknowledgements sleeps when there are none; one that comes wakes it.
const POLL: Duration = Duration::from_millis(100);

/// Times the delivery timeout: only what was sent for somebody who has gone away without waiting gets so old.
const OUT_OF_REACH: u32 = 20;

/// One record to send. librdkafka copies its bytes.
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
    producer: ArcSwap<Polled>,
    away: AtomicBool,
    probing: AtomicBool,
}

impl IdempotentProducer {
    pub fn new(config: &KafkaConfig, topic: String) -> Result<Arc<Self>, KafkaError> {
        Ok(Arc::new(Self {
            producer: ArcSwap::from_pointee(Polled::start(config)?),
            config: config.clone(),
            topic,
            away: AtomicBool::new(false),
            probing: AtomicBool::new(false),
        }))
    }

    pub fn available(&self) -> Result<(), AppendError> {
        if self.away.load(Ordering::Relaxed) {
            return Err(AppendError::Unavailable("Kafka does not answer".into()));
        }
        Ok(())
    }

    pub async fn send<'a>(
        self: &Arc<Self>,
        records: impl ExactSizeIterator<Item = Outgoing<'a>>,
    ) -> Vec<Result<Offset, AppendError>> {
        if let Err(error) = self.available() {
            self.probe_until_back();
            return vec![Err(error); records.len()];
        }
        let batch = Arc::new(Batch::new(records.len()));
        self.enqueue(records, &batch);

        let _ = tokio::time::timeout(self.config.delivery_timeout, batch.all_answered()).await;
        let results = batch.take();
        // A log that is sealed answers: nothing of it is on its way any more.
        if results.iter().any(|result| !matches!(result, Ok(_) | Err(AppendError::Sealed))) {
            self.away.store(true, Ordering::Relaxed);
            let everything = PurgeConfig::default().queue().inflight().non_blocking();
            self.producer.load().producer.purge(everything);
            self.probe_until_back();
        }
        results
    }

    fn enqueue<'a>(&self, records: impl Iterator<Item = Outgoing<'a>>, batch: &Arc<Batch>) {
        let polled = self.producer.load();
        for (slot, record) in records.enumerate() {
            let delivery = Box::new(Delivery { batch: Arc::clone(batch), slot });
            let mut kafka_record = BaseRecord::with_opaque_to(&self.topic, delivery)
                .partition(record.partition as i32)
                .key(record.key)
                .payload(record.value);
            kafka_record.headers = record.headers;
            if let Err((error, refused)) = polled.producer.send(kafka_record) {
                // Refused before it was queued: the only case in which "not in the log" is certain.
                refused.delivery_opaque.answer(Err(AppendError::Unavailable(error.to_string())));
            }
        }
    }

    /// Looks for Kafka in a thread of its own until it is back or nobody is interested any more.
    fn probe_until_back(self: &Arc<Self>) {
        if self.probing.swap(true, Ordering::AcqRel) {
            return;
        }
        let this = Arc::downgrade(self);
        let spawned =
            std::thread::Builder::new().name("kafka-probe".into()).spawn(move || probe(&this));
        if let Err(error) = spawned {
            tracing::error!(%error, "no thread to look for Kafka");
            self.probing.store(false, Ordering::Release);
            // Whoever sends next finds out; nobody would, if everyone were refused before.
            self.away.store(false, Ordering::Relaxed);
        }
    }

    fn revive(&self) -> Result<(), KafkaError> {
        if self.producer.load().producer.client().fatal_error().is_some() {
            self.producer.store(Arc::new(Polled::start(&self.config)?));
        }
        let client = self.producer.load();
        client.producer.client().fetch_metadata(Some(&self.topic), PROBE_TIMEOUT).map(|_| ())
    }
}

fn probe(producer: &Weak<IdempotentProducer>) {
    while let Some(producer) = producer.upgrade() {
        match producer.revive() {
            Ok(()) => {
                producer.probing.store(false, Ordering::Release);
                producer.away.store(false, Ordering::Relaxed);
                tracing::info!(topic = producer.topic, "Kafka takes records");
                return;
            }
            Err(error) => {
                tracing::warn!(%error, topic = producer.topic, "Kafka does not take records")
            }
        }
        drop(producer);
        std::thread::sleep(PROBE_INTERVAL);
    }
}

/// A producer and the thread that takes its acknowledgements in.
///
/// Not rdkafka's `ThreadedProducer`: its drop waits for the thread, and that thread may wait by the time of day for as
/// long as the clock was set back; a process could not end.
struct Polled {
    producer: Arc<BaseProducer<Deliveries>>,
    dropped: Arc<AtomicBool>,
}

impl Polled {
    fn start(config: &KafkaConfig) -> Result<Self, KafkaError> {
        let producer: Arc<BaseProducer<Deliveries>> = Arc::new(
            config
                .client()
                .set("enable.idempotence", "true")
                .set("acks", "all")
                .set(
                    "message.timeout.ms",
                    (config.delivery_timeout * OUT_OF_REACH).as_millis().to_string(),
                )
                .set("linger.ms", config.linger.as_millis().to_string())
                .set("batch.num.messages", "20000")
                .set("batch.size", "1000000")
                .set("queue.buffering.max.messages", "400000")
                .set("queue.buffering.max.kbytes", "262144")
                .set("statistics.interval.ms", Rebootstrap::STATISTICS_INTERVAL_MS)
                .create_with_context(Deliveries {
                    rebootstrap: Rebootstrap::new(&config.brokers)?,
                })?,
        );
        let dropped = Arc::new(AtomicBool::new(false));
        let (polled, ended) = (Arc::clone(&producer), Arc::clone(&dropped));
        std::thread::Builder::new()
            .name("kafka-acks".into())
            .spawn(move || {
                while !ended.load(Ordering::Relaxed) {
                    polled.poll(POLL);
                    polled.context().rebootstrap.mend(polled.client());
                }
            })
            .map_err(|error| KafkaError::ClientCreation(error.to_string()))?;
        Ok(Self { producer, dropped })
    }
}

impl Drop for Polled {
    fn drop(&mut self) {
        self.dropped.store(true, Ordering::Relaxed);
    }
}

/// A topic is sealed by letting it take no record of any size. The broker looks at that before anything else.
pub(super) fn is_refusal_of_a_sealed_log(error: &KafkaError) -> bool {
    error.rdkafka_error_code() == Some(RDKafkaErrorCode::MessageSizeTooLarge)
}

struct Deliveries {
    rebootstrap: Rebootstrap,
}

impl ClientContext for Deliveries {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "Kafka producer");
    }

    fn stats(&self, statistics: Statistics) {
        self.rebootstrap.look(&statistics);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<Delivery>;

    fn delivery(&self, result: &DeliveryResult<'_>, delivery: Box<Delivery>) {
        delivery.answer(match result {
            // librdkafka has no offset for a record that a broker says it had already.
            Ok(message) => u64::try_from(message.offset())
                .map(Offset)
                .map_err(|_| AppendError::Unknown("acknowledged without an offset".into())),
            Err((error, _)) if is_refusal_of_a_sealed_log(error) => Err(AppendError::Sealed),
            // It may have been on its way: librdkafka's binding does not say.
            Err((error, _)) => Err(AppendError::Unknown(error.to_string())),
        });
    }
}

/// The way back of one record's answer.
struct Delivery {
    batch: Arc<Batch>,
    slot: usize,
}

impl Delivery {
    fn answer(self, result: Result<Offset, AppendError>) {
        self.batch.answer(self.slot, result);
    }
}

/// The answers of one batch as they come in.
struct Batch {
    answers: Mutex<Answers>,
    all_answered: Notify,
}

struct Answers {
    results: Vec<Option<Result<Offset, AppendError>>>,
    missing: usize,
}

impl Batch {
    fn new(len: usize) -> Self {
        Self {
            answers: Mutex::new(Answers { results: vec![None; len], missing: len }),
            all_answered: Notify::new(),
        }
    }

    fn answer(&self, slot: usize, result: Result<Offset, AppendError>) {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        // After a timeout the answers have been taken, and this one comes too late.
        if let Some(place) = answers.results.get_mut(slot) {
            *place = Some(result);
            answers.missing -= 1;
            if answers.missing == 0 {
                self.all_answered.notify_one();
            }
        }
    }

    async fn all_answered(&self) {
        let missing = self.answers.lock().unwrap_or_else(PoisonError::into_inner).missing;
        if missing > 0 {
            self.all_answered.notified().await;
        }
    }

    fn take(&self) -> Vec<Result<Offset, AppendError>> {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut answers.results)
            .into_iter()
            .map(|answer| {
                answer.unwrap_or_else(|| {
                    Err(AppendError::Unknown("no acknowledgement in time".into()))
                })
            })
            .collect()
    }
}
