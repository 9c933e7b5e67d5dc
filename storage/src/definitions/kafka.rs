//! Definitions on a compacted Kafka topic.
//!
//! Compare-and-set comes from Kafka's own fencing: every change opens a transactional producer under one shared
//! transactional id, which ends whatever anyone else had open; then it reads the topic to its end, decides, and
//! commits. Of two changes at once, one is fenced and starts over. Readers see committed definitions only.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use rdkafka::{ClientContext, Message, Offset, Statistics, TopicPartitionList};
use schemas::{Budget, BudgetId, LogRef};
use serde::Serialize;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Catalog, Change, DefinitionError, Definitions};
use crate::log::kafka::{KafkaConfig, Rebootstrap};

const CHANGE_PATIENCE: Duration = Duration::from_secs(15);
const STEP_TIMEOUT: Duration = Duration::from_secs(5);
const FOLLOW_POLL: Duration = Duration::from_millis(100);
const RECONNECT_PAUSE: Duration = Duration::from_millis(500);

/// Follows the topic from its start, in a thread of its own, until dropped.
pub struct KafkaDefinitions {
    config: KafkaConfig,
    shared: Arc<Shared>,
    /// One change at a time in this process; between processes Kafka decides.
    changing: tokio::sync::Mutex<()>,
    stop: CancellationToken,
}

/// The key of the record that says where submissions go. No budget is called so.
const LOG_KEY: &str = "@log";

struct Shared {
    catalog: ArcSwap<Catalog>,
    log: watch::Sender<Option<LogRef>>,
    loaded: AtomicBool,
    changed: watch::Sender<()>,
}

impl KafkaDefinitions {
    /// Starts following the topic. Does not wait for Kafka.
    ///
    /// # Errors
    /// When the operating system gives no thread.
    pub fn open(config: &KafkaConfig) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            catalog: ArcSwap::default(),
            log: watch::Sender::new(None),
            loaded: AtomicBool::new(false),
            changed: watch::Sender::new(()),
        });
        let stop = CancellationToken::new();
        let follower = (config.clone(), Arc::clone(&shared), stop.clone());
        std::thread::Builder::new().name("definitions".into()).spawn(move || {
            let (config, shared, stop) = follower;
            while !stop.is_cancelled() {
                if let Err(error) = follow(&config, &shared, &stop) {
                    tracing::warn!(%error, "definitions cannot be followed now");
                    std::thread::sleep(RECONNECT_PAUSE);
                }
            }
        })?;
        Ok(Self { config: config.clone(), shared, changing: tokio::sync::Mutex::default(), stop })
    }
}

impl Drop for KafkaDefinitions {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[async_trait]
impl Definitions for KafkaDefinitions {
    fn catalog(&self) -> Arc<Catalog> {
        self.shared.catalog.load_full()
    }

    fn is_loaded(&self) -> bool {
        self.shared.loaded.load(Ordering::Acquire)
    }

    fn changes(&self) -> watch::Receiver<()> {
        self.shared.changed.subscribe()
    }

    fn log(&self) -> watch::Receiver<Option<LogRef>> {
        self.shared.log.subscribe()
    }

    async fn move_log(&self, to: &LogRef) -> Result<(), DefinitionError> {
        let deadline = Instant::now() + CHANGE_PATIENCE;
        let _alone = self.changing.lock().await;
        loop {
            let next = to.clone();
            match self.blocking(move |config| move_log(config, &next)).await? {
                Ok(log) => {
                    self.shared.take_log_in(log);
                    return Ok(());
                }
                Err(error) if Instant::now() > deadline => {
                    return Err(DefinitionError::Unavailable(error.to_string()));
                }
                Err(error) => {
                    tracing::debug!(%error, "a move of the log starts over");
                    tokio::time::sleep(jitter()).await;
                }
            }
        }
    }

    async fn change(
        &self,
        budget: &BudgetId,
        decide: &Change<'_>,
    ) -> Result<Arc<Budget>, DefinitionError> {
        let deadline = Instant::now() + CHANGE_PATIENCE;
        let _alone = self.changing.lock().await;
        let mut changes = self.changes();
        loop {
            // The blocking steps are apart from `decide`, which is borrowed and pure.
            let opened = self.blocking(open_change).await?;
            let outcome = match opened {
                Ok(opened) => {
                    let current = opened.catalog.get(budget.as_str()).cloned();
                    match decide(current.as_deref())? {
                        None => current
                            .ok_or_else(|| {
                                DefinitionError::Unavailable("a change left nothing behind".into())
                            })
                            .map(Ok)?,
                        Some(next) => {
                            let next = Arc::new(next);
                            let written = Arc::clone(&next);
                            self.blocking(move |config| write(&opened.producer, config, &written))
                                .await?
                                .map(|()| next)
                        }
                    }
                }
                Err(error) => Err(error),
            };
            match outcome {
                Ok(definition) => {
                    self.shared.take_in(Arc::clone(&definition));
                    return Ok(definition);
                }
                // Fenced by another change, or Kafka was away, or the outcome is unknown: look again.
                Err(error) if Instant::now() > deadline => {
                    return Err(DefinitionError::Unavailable(error.to_string()));
                }
                Err(error) => {
                    tracing::debug!(%error, "a change of definitions starts over");
                    // Whoever fenced us is about to commit: going on before that would only fence them.
                    let _ = tokio::time::timeout(jitter(), changes.changed()).await;
                }
            }
        }
    }
}

impl KafkaDefinitions {
    async fn blocking<T: Send + 'static>(
        &self,
        step: impl FnOnce(&KafkaConfig) -> T + Send + 'static,
    ) -> Result<T, DefinitionError> {
        let config = self.config.clone();
        tokio::task::spawn_blocking(move || step(&config))
            .await
            .map_err(|error| DefinitionError::Unavailable(error.to_string()))
    }
}

/// Keeps two processes that fence each other from doing so in step.
fn jitter() -> Duration {
    let random = uuid::Uuid::new_v4().as_u64_pair().1;
    Duration::from_millis(500 + random % 1_500)
}

struct OpenChange {
    producer: BaseProducer<Quiet>,
    catalog: Catalog,
    log: Option<LogRef>,
}

/// Ends every other change and reads what has been committed.
fn open_change(config: &KafkaConfig) -> KafkaResult<OpenChange> {
    let producer: BaseProducer<Quiet> = config
        .client()
        .set("transactional.id", &config.definitions_topic)
        .set("transaction.timeout.ms", STEP_TIMEOUT.as_millis().to_string())
        .create_with_context(Quiet::new(config)?)?;
    producer.init_transactions(STEP_TIMEOUT)?;
    let consumer = reader(config)?;
    let deadline = Instant::now() + STEP_TIMEOUT;
    let (mut catalog, mut log) = (Catalog::default(), None);
    loop {
        match consumer.poll(FOLLOW_POLL) {
            Some(Ok(message)) => match parse(&message) {
                Some(Entry::Budget(budget)) => catalog = catalog.with(Arc::new(budget)),
                Some(Entry::Log(moved)) => log = Some(moved),
                None => {}
            },
            Some(Err(KafkaError::PartitionEOF(_))) => {
                return Ok(OpenChange { producer, catalog, log });
            }
            Some(Err(error)) if Instant::now() > deadline => return Err(error),
            _ if Instant::now() > deadline => {
                return Err(KafkaError::Canceled);
            }
            _ => {}
        }
    }
}

/// Answers where submissions go then.
fn move_log(config: &KafkaConfig, to: &LogRef) -> KafkaResult<LogRef> {
    let OpenChange { producer, log, .. } = open_change(config)?;
    if let Some(log) = log.filter(|log| log.number >= to.number) {
        return Ok(log);
    }
    write_entry(&producer, config, LOG_KEY, to)?;
    Ok(to.clone())
}

fn write(producer: &BaseProducer<Quiet>, config: &KafkaConfig, budget: &Budget) -> KafkaResult<()> {
    write_entry(producer, config, budget.id.as_str(), budget)
}

fn write_entry(
    producer: &BaseProducer<Quiet>,
    config: &KafkaConfig,
    key: &str,
    entry: &impl Serialize,
) -> KafkaResult<()> {
    let Ok(json) = serde_json::to_vec(entry) else { return Err(KafkaError::Canceled) };
    producer.begin_transaction()?;
    let record =
        BaseRecord::<str, [u8]>::to(&config.definitions_topic).partition(0).key(key).payload(&json);
    producer.send(record).map_err(|(error, _)| error)?;
    producer.commit_transaction(STEP_TIMEOUT)
}

/// Says at debug level what librdkafka mends by itself, or returns to us as well: the end of the partition counts as
/// an error to it, and to be fenced by another change as a fatal one.
struct Quiet {
    rebootstrap: Rebootstrap,
}

impl Quiet {
    fn new(config: &KafkaConfig) -> KafkaResult<Self> {
        Ok(Self { rebootstrap: Rebootstrap::new(&config.brokers)? })
    }
}

impl ClientContext for Quiet {
    fn log(&self, _level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(facility, message, "definitions");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "definitions");
    }

    fn stats(&self, statistics: Statistics) {
        self.rebootstrap.look(&statistics);
    }
}

impl ConsumerContext for Quiet {}

impl ProducerContext for Quiet {
    type DeliveryOpaque = ();

    /// Whether it is there, the end of its transaction says.
    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}

fn reader(config: &KafkaConfig) -> KafkaResult<BaseConsumer<Quiet>> {
    let consumer: BaseConsumer<Quiet> = config
        .client()
        // Needed by the client; nothing is ever committed to it.
        .set("group.id", format!("{}-readers", config.definitions_topic))
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("isolation.level", "read_committed")
        .set("auto.offset.reset", "earliest")
        .set("fetch.wait.max.ms", "100")
        .set("statistics.interval.ms", Rebootstrap::STATISTICS_INTERVAL_MS)
        .create_with_context(Quiet::new(config)?)?;
    let mut partitions = TopicPartitionList::new();
    partitions.add_partition_offset(&config.definitions_topic, 0, Offset::Beginning)?;
    consumer.assign(&partitions)?;
    Ok(consumer)
}

fn follow(config: &KafkaConfig, shared: &Shared, stop: &CancellationToken) -> KafkaResult<()> {
    let consumer = reader(config)?;
    while !stop.is_cancelled() {
        let polled = consumer.poll(FOLLOW_POLL);
        consumer.context().rebootstrap.mend(consumer.client());
        match polled {
            Some(Ok(message)) => match parse(&message) {
                Some(Entry::Budget(budget)) => shared.take_in(Arc::new(budget)),
                Some(Entry::Log(log)) => shared.take_log_in(log),
                None => tracing::warn!(
                    offset = message.offset(),
                    "a definition does not parse and is passed over"
                ),
            },
            Some(Err(KafkaError::PartitionEOF(_))) => shared.set_loaded(),
            Some(Err(error)) => tracing::debug!(%error, "definitions consumer"),
            None => {}
        }
    }
    Ok(())
}

/// One record of the topic.
enum Entry {
    Budget(Budget),
    Log(LogRef),
}

fn parse(message: &impl Message) -> Option<Entry> {
    let payload = message.payload()?;
    if message.key() == Some(LOG_KEY.as_bytes()) {
        return Some(Entry::Log(serde_json::from_slice(payload).ok()?));
    }
    let budget: Budget = serde_json::from_slice(payload).ok()?;
    budget.faults().is_empty().then_some(Entry::Budget(budget))
}

impl Shared {
    fn set_loaded(&self) {
        if !self.loaded.swap(true, Ordering::AcqRel) {
            self.changed.send_replace(());
        }
    }

    /// Takes in where submissions go, unless they go further already.
    fn take_log_in(&self, log: LogRef) {
        self.log.send_if_modified(|known| {
            let news = known.as_ref().is_none_or(|known| known.number < log.number);
            if news {
                *known = Some(log);
            }
            news
        });
    }

    /// Takes a definition in unless a newer one is there: a change's own answer may overtake the follower.
    fn take_in(&self, budget: Arc<Budget>) {
        let mut news = false;
        self.catalog.rcu(|catalog| {
            news = catalog
                .get(budget.id.as_str())
                .is_none_or(|known| known.revision < budget.revision);
            if news { Arc::new(catalog.with(Arc::clone(&budget))) } else { Arc::clone(catalog) }
        });
        if news {
            self.changed.send_replace(());
        }
    }
}
