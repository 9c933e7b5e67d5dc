//! One change of the control topic: reads the committed state to its end, and writes, in one Kafka transaction.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use schemas::{Budget, LogRef};
use serde::Serialize;

use super::follower::{self, ControlRecord};
use super::{ACTIVE_LOG_KEY, POLL_INTERVAL, QuietContext};
use crate::control::Catalog;
use crate::log::kafka::KafkaConfig;

const STEP_TIMEOUT: Duration = Duration::from_secs(5);

/// A change whose producer has fenced all others.
pub(super) struct OpenTransaction {
    producer: BaseProducer<QuietContext>,
    /// The committed definitions.
    pub catalog: Catalog,
    /// The committed active log.
    active_log: Option<LogRef>,
}

/// Fences all concurrent changes and reads the committed state.
pub(super) fn open(config: &KafkaConfig) -> KafkaResult<OpenTransaction> {
    let producer: BaseProducer<QuietContext> = config
        .client()
        .set("transactional.id", &config.definitions_topic)
        .set("transaction.timeout.ms", STEP_TIMEOUT.as_millis().to_string())
        .create_with_context(QuietContext::new(config)?)?;
    producer.init_transactions(STEP_TIMEOUT)?;
    let consumer = follower::consumer(config)?;
    let deadline = Instant::now() + STEP_TIMEOUT;
    let (mut catalog, mut active_log) = (Catalog::default(), None);
    loop {
        match consumer.poll(POLL_INTERVAL) {
            Some(Ok(message)) => match ControlRecord::parse(&message) {
                Some(ControlRecord::Budget(budget)) => catalog = catalog.with(Arc::new(budget)),
                Some(ControlRecord::ActiveLog(log)) => active_log = Some(log),
                None => {}
            },
            Some(Err(KafkaError::PartitionEOF(_))) => {
                return Ok(OpenTransaction { producer, catalog, active_log });
            }
            Some(Err(error)) if Instant::now() > deadline => return Err(error),
            _ if Instant::now() > deadline => {
                return Err(KafkaError::Canceled);
            }
            _ => {}
        }
    }
}

/// Publishes the active log unless it or a later one is published already. Returns the log that is published then.
pub(super) fn publish_log(config: &KafkaConfig, log: &LogRef) -> KafkaResult<LogRef> {
    let opened = open(config)?;
    match &opened.active_log {
        Some(published) if published.number >= log.number => Ok(published.clone()),
        _ => opened.write(config, ACTIVE_LOG_KEY, log).map(|()| log.clone()),
    }
}

impl OpenTransaction {
    /// Writes a definition and commits.
    pub fn write_budget(&self, config: &KafkaConfig, budget: &Budget) -> KafkaResult<()> {
        self.write(config, budget.id.as_str(), budget)
    }

    fn write(&self, config: &KafkaConfig, key: &str, value: &impl Serialize) -> KafkaResult<()> {
        let Ok(json) = serde_json::to_vec(value) else { return Err(KafkaError::Canceled) };
        self.producer.begin_transaction()?;
        let record = BaseRecord::<str, [u8]>::to(&config.definitions_topic)
            .partition(0)
            .key(key)
            .payload(&json);
        self.producer.send(record).map_err(|(error, _)| error)?;
        self.producer.commit_transaction(STEP_TIMEOUT)
    }
}
