//! Follows the control topic in a thread, and maintains the state that both views read.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::{Message, Offset, TopicPartitionList};
use schemas::{Budget, LogRef};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{ACTIVE_LOG_KEY, POLL_INTERVAL, QuietContext};
use crate::control::Catalog;
use crate::log::kafka::{KafkaConfig, Rebootstrap};

const RECONNECT_DELAY: Duration = Duration::from_millis(500);

/// The latest known state of the topic.
pub(super) struct State {
    pub catalog: ArcSwap<Catalog>,
    pub active_log: watch::Sender<Option<LogRef>>,
    loaded: AtomicBool,
    pub changed: watch::Sender<()>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            catalog: ArcSwap::default(),
            active_log: watch::Sender::new(None),
            loaded: AtomicBool::new(false),
            changed: watch::Sender::new(()),
        }
    }
}

impl State {
    pub fn is_loaded(&self) -> bool {
        self.loaded.load(Ordering::Acquire)
    }

    fn set_loaded(&self) {
        if !self.loaded.swap(true, Ordering::AcqRel) {
            self.changed.send_replace(());
        }
    }

    /// Updates the active log, unless the known one is the same or later.
    pub fn update_log(&self, log: LogRef) {
        self.active_log.send_if_modified(|known| {
            let is_newer = known.as_ref().is_none_or(|known| known.number < log.number);
            if is_newer {
                *known = Some(log);
            }
            is_newer
        });
    }

    /// Updates a definition, unless the known one is newer: the response to a change may overtake the follower.
    pub fn update_budget(&self, budget: Arc<Budget>) {
        let mut is_newer = false;
        self.catalog.rcu(|catalog| {
            is_newer = catalog
                .get(budget.id.as_str())
                .is_none_or(|known| known.revision < budget.revision);
            if is_newer { Arc::new(catalog.with(Arc::clone(&budget))) } else { Arc::clone(catalog) }
        });
        if is_newer {
            self.changed.send_replace(());
        }
    }
}

/// A record of the topic.
pub(super) enum ControlRecord {
    Budget(Budget),
    ActiveLog(LogRef),
}

impl ControlRecord {
    /// Parses a record; `None` if it is invalid.
    pub fn parse(message: &impl Message) -> Option<Self> {
        let payload = message.payload()?;
        if message.key() == Some(ACTIVE_LOG_KEY.as_bytes()) {
            return Some(Self::ActiveLog(serde_json::from_slice(payload).ok()?));
        }
        let budget: Budget = serde_json::from_slice(payload).ok()?;
        budget.faults().is_empty().then_some(Self::Budget(budget))
    }
}

/// Starts the follower's thread.
pub(super) fn spawn(
    config: KafkaConfig,
    state: Arc<State>,
    stop: CancellationToken,
) -> std::io::Result<()> {
    std::thread::Builder::new().name("definitions".into()).spawn(move || {
        while !stop.is_cancelled() {
            if let Err(error) = follow(&config, &state, &stop) {
                let retry_in_ms = RECONNECT_DELAY.as_millis() as u64;
                tracing::warn!(%error, retry_in_ms, "failed to follow the control topic, retrying");
                std::thread::sleep(RECONNECT_DELAY);
            }
        }
    })?;
    Ok(())
}

fn follow(config: &KafkaConfig, state: &State, stop: &CancellationToken) -> KafkaResult<()> {
    let consumer = consumer(config)?;
    while !stop.is_cancelled() {
        let polled = consumer.poll(POLL_INTERVAL);
        consumer.context().rebootstrap.restore_brokers(consumer.client());
        match polled {
            Some(Ok(message)) => match ControlRecord::parse(&message) {
                Some(ControlRecord::Budget(budget)) => state.update_budget(Arc::new(budget)),
                Some(ControlRecord::ActiveLog(log)) => state.update_log(log),
                None => tracing::warn!(
                    offset = message.offset(),
                    "ignored an invalid record of the control topic"
                ),
            },
            Some(Err(KafkaError::PartitionEOF(_))) => state.set_loaded(),
            Some(Err(error)) => tracing::debug!(%error, "control topic consumer error"),
            None => {}
        }
    }
    Ok(())
}

/// Creates a consumer that reads the topic from its start.
pub(super) fn consumer(config: &KafkaConfig) -> KafkaResult<BaseConsumer<QuietContext>> {
    let consumer: BaseConsumer<QuietContext> = config
        .client()
        // Required by the client; no offset is ever committed to it.
        .set("group.id", format!("{}-readers", config.definitions_topic))
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("isolation.level", "read_committed")
        .set("auto.offset.reset", "earliest")
        .set("fetch.wait.max.ms", "100")
        .set("statistics.interval.ms", Rebootstrap::STATISTICS_INTERVAL_MS)
        .create_with_context(QuietContext::new(config)?)?;
    let mut partitions = TopicPartitionList::new();
    partitions.add_partition_offset(&config.definitions_topic, 0, Offset::Beginning)?;
    consumer.assign(&partitions)?;
    Ok(consumer)
}
