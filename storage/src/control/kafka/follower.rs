//! Follows the control topic in a thread, and maintains the state that both views read.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::{Message, Offset, TopicPartitionList};
use schemas::{
    BudgetId, LogRef, RevokedCodes, SecretFingerprint, StoredAnnulments, StoredBudget,
    StoredRevocations,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::committed_end::InitialRead;
use super::{
    ACTIVE_LOG_KEY, ANNULMENTS_KEY_PREFIX, POLL_INTERVAL, QuietContext, REVOKED_KEY_PREFIX,
    SECRET_KEY,
};
use crate::control::Catalog;
use crate::log::kafka::keep_awake::keep_awake;
use crate::log::kafka::{KafkaConfig, Rebootstrap};

const RECONNECT_DELAY: Duration = Duration::from_millis(500);

/// The latest known state of the topic.
pub(super) struct State {
    pub catalog: ArcSwap<Catalog>,
    pub active_log: watch::Sender<Option<LogRef>>,
    pub secret: watch::Sender<Option<SecretFingerprint>>,
    pub revoked: watch::Sender<RevokedCodes>,
    annulments: Mutex<BTreeMap<BudgetId, StoredAnnulments>>,
    loaded: AtomicBool,
    /// The active log's latest record can only be read by a newer release.
    log_unreadable: AtomicBool,
    pub changed: watch::Sender<()>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            catalog: ArcSwap::default(),
            active_log: watch::Sender::new(None),
            secret: watch::Sender::new(None),
            revoked: watch::Sender::default(),
            annulments: Mutex::default(),
            loaded: AtomicBool::new(false),
            log_unreadable: AtomicBool::new(false),
            changed: watch::Sender::new(()),
        }
    }
}

impl State {
    pub fn is_loaded(&self) -> bool {
        self.loaded.load(Ordering::Acquire)
    }

    /// Whether the history has been read to its end once, and says which log is active.
    pub fn is_log_known(&self) -> bool {
        self.is_loaded() && !self.log_unreadable.load(Ordering::Acquire)
    }

    /// Notes that another log may be active than the known one.
    pub fn set_log_unreadable(&self) {
        self.log_unreadable.store(true, Ordering::Release);
    }

    fn set_loaded(&self) {
        if !self.loaded.swap(true, Ordering::AcqRel) {
            self.revoked.send_modify(RevokedCodes::set_loaded);
            self.changed.send_replace(());
        }
    }

    /// Updates the active log, unless the known one is the same or later.
    pub fn update_log(&self, log: LogRef) {
        self.log_unreadable.store(false, Ordering::Release);
        self.active_log.send_if_modified(|known| {
            let is_newer = known.as_ref().is_none_or(|known| known.number < log.number);
            if is_newer {
                *known = Some(log);
            }
            is_newer
        });
    }

    /// Sets the fingerprint of the person secret, which never changes.
    pub fn set_secret(&self, fingerprint: SecretFingerprint) {
        self.secret.send_if_modified(|known| {
            let is_first = known.is_none();
            if is_first {
                *known = Some(fingerprint);
            }
            is_first
        });
    }

    /// Adds revoked codes of a budget.
    pub fn add_revoked(&self, budget: &BudgetId, stored: StoredRevocations) {
        self.revoked.send_if_modified(|known| known.add(budget, stored));
    }

    /// Returns the annulments of a budget.
    pub fn annulments(&self, budget: &BudgetId) -> StoredAnnulments {
        let known = self.annulments.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(budget).cloned().unwrap_or_default()
    }

    /// Sets the annulments of a budget. Only the follower knows the order of documents.
    fn set_annulments(&self, budget: BudgetId, stored: StoredAnnulments) {
        let mut known = self.annulments.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(budget, stored);
    }

    /// Updates a definition, unless the known one is newer: the response to a change may overtake the follower.
    pub fn update_budget(&self, id: &BudgetId, stored: &StoredBudget) {
        let mut updated = None;
        self.catalog.rcu(|catalog| {
            updated = catalog.with_newer(id, stored).map(Arc::new);
            updated.clone().unwrap_or_else(|| Arc::clone(catalog))
        });
        if let Some(catalog) = updated {
            catalog.log_not_understood(id);
            self.changed.send_replace(());
        }
    }
}

/// A record of the topic.
pub(super) enum ControlRecord {
    Budget(BudgetId, Box<StoredBudget>),
    ActiveLog(LogRef),
    /// The active log's record, in a form that only a newer release can read.
    UnreadableLog,
    Secret(SecretFingerprint),
    /// The record of the person secret, in a form that only a newer release can read.
    UnreadableSecret,
    Revoked(BudgetId, StoredRevocations),
    Annulments(BudgetId, StoredAnnulments),
}

impl ControlRecord {
    /// Parses a record; `None` if its key is none of this release.
    pub fn parse(message: &impl Message) -> Option<Self> {
        Self::of(message.key()?, message.payload())
    }

    fn of(key: &[u8], payload: Option<&[u8]>) -> Option<Self> {
        if key == ACTIVE_LOG_KEY.as_bytes() {
            let log = payload.and_then(|json| serde_json::from_slice(json).ok());
            return Some(log.map_or(Self::UnreadableLog, Self::ActiveLog));
        }
        if key == SECRET_KEY.as_bytes() {
            let secret = payload.and_then(|json| serde_json::from_slice(json).ok());
            return Some(secret.map_or(Self::UnreadableSecret, Self::Secret));
        }
        let key = std::str::from_utf8(key).ok()?;
        if let Some(budget) = key.strip_prefix(REVOKED_KEY_PREFIX) {
            let budget = BudgetId::parse(budget).ok()?;
            let stored = StoredRevocations::parse(&budget, payload.unwrap_or_default());
            return Some(Self::Revoked(budget, stored));
        }
        if let Some(budget) = key.strip_prefix(ANNULMENTS_KEY_PREFIX) {
            let budget = BudgetId::parse(budget).ok()?;
            let stored = StoredAnnulments::parse(&budget, payload.unwrap_or_default());
            return Some(Self::Annulments(budget, stored));
        }
        let id = BudgetId::parse(key).ok()?;
        let unreadable =
            |reason: &str| StoredBudget::Unreadable { revision: None, reason: reason.to_owned() };
        let stored = match payload.map(StoredBudget::parse) {
            None => unreadable("it was deleted, which this release does not support"),
            Some(
                StoredBudget::Understood(budget) | StoredBudget::PartlyUnderstood { budget, .. },
            ) if budget.id != id => unreadable("its id is not its key"),
            Some(stored) => stored,
        };
        Some(Self::Budget(id, Box::new(stored)))
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
    keep_awake(&consumer, || poll_until(&consumer, config, state, stop))
}

fn poll_until(
    consumer: &BaseConsumer<QuietContext>,
    config: &KafkaConfig,
    state: &State,
    stop: &CancellationToken,
) -> KafkaResult<()> {
    let mut initial_read = InitialRead::default();
    while !stop.is_cancelled() {
        let polled = consumer.poll(POLL_INTERVAL);
        consumer.context().rebootstrap.restore_brokers(consumer.client());
        if consumer.context().connections.is_stuck() {
            return Err(KafkaError::Global(RDKafkaErrorCode::AllBrokersDown));
        }
        match polled {
            Some(Ok(message)) => match ControlRecord::parse(&message) {
                Some(ControlRecord::Budget(id, stored)) => state.update_budget(&id, &stored),
                Some(ControlRecord::ActiveLog(log)) => state.update_log(log),
                Some(ControlRecord::UnreadableLog) => {
                    state.set_log_unreadable();
                    tracing::error!(
                        offset = message.offset(),
                        "record of the active log is unreadable: it is damaged, or a newer release wrote it"
                    );
                }
                Some(ControlRecord::Secret(fingerprint)) => state.set_secret(fingerprint),
                Some(ControlRecord::UnreadableSecret) => tracing::error!(
                    offset = message.offset(),
                    "record of the person secret is unreadable: it is damaged, or a newer release wrote it"
                ),
                Some(ControlRecord::Revoked(budget, stored)) => {
                    if stored == StoredRevocations::Unreadable {
                        tracing::error!(
                            %budget,
                            offset = message.offset(),
                            "record of revoked codes is unreadable: it is damaged, or a newer release wrote it; no code of the budget is accepted"
                        );
                    }
                    state.add_revoked(&budget, stored);
                }
                Some(ControlRecord::Annulments(budget, stored)) => {
                    if stored == StoredAnnulments::Unreadable {
                        tracing::error!(
                            %budget,
                            offset = message.offset(),
                            "list of annulments is unreadable: it is damaged, or a newer release wrote it"
                        );
                    }
                    state.set_annulments(budget, stored);
                }
                None => tracing::warn!(
                    offset = message.offset(),
                    "ignored a record of the control topic with an unknown key"
                ),
            },
            Some(Err(KafkaError::PartitionEOF(_))) => initial_read.has_met_end = true,
            Some(Err(error)) => tracing::debug!(%error, "control topic consumer error"),
            None => {}
        }
        if !state.is_loaded() && initial_read.is_complete(consumer, config) {
            state.set_loaded();
        }
    }
    Ok(())
}

/// Creates a consumer that reads the topic from its start.
pub(super) fn consumer(config: &KafkaConfig) -> KafkaResult<BaseConsumer<QuietContext>> {
    let consumer = client(config)?;
    let mut partitions = TopicPartitionList::new();
    partitions.add_partition_offset(&config.definitions_topic, 0, Offset::Beginning)?;
    consumer.assign(&partitions)?;
    Ok(consumer)
}

/// Creates a consumer that reads nothing yet.
pub(super) fn client(config: &KafkaConfig) -> KafkaResult<BaseConsumer<QuietContext>> {
    config
        .client()
        // Required by the client; no offset is ever committed to it.
        .set("group.id", format!("{}-readers", config.definitions_topic))
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("isolation.level", "read_committed")
        .set("auto.offset.reset", "earliest")
        .set("fetch.wait.max.ms", "100")
        .set("statistics.interval.ms", Rebootstrap::STATISTICS_INTERVAL_MS)
        .create_with_context(QuietContext::new(config)?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const FUTURE: &[u8] = include_bytes!("../../../../schemas/tests/golden/future_definition.json");

    #[test]
    fn a_budget_record_of_a_newer_release_is_never_passed_over() {
        let read =
            |key: &str, payload: Option<&[u8]>| match ControlRecord::of(key.as_bytes(), payload) {
                Some(ControlRecord::Budget(id, stored)) => {
                    Catalog::default().with_stored(&id, *stored).changeable(key).is_err()
                }
                _ => false,
            };
        assert!(read("parks", Some(FUTURE)));
        assert!(read("parks", Some(b"\x00binary")));
        assert!(read("parks", None), "deleted");
        assert!(read("not-parks", Some(FUTURE)), "another budget's record");
        assert!(ControlRecord::of(b"@newer", Some(b"{}")).is_none());
    }

    #[test]
    fn an_unreadable_active_log_is_not_taken_for_the_known_one() {
        let state = State::default();
        state.set_loaded();
        assert!(state.is_log_known());
        assert!(matches!(
            ControlRecord::of(ACTIVE_LOG_KEY.as_bytes(), Some(br#"{"logs":[]}"#)),
            Some(ControlRecord::UnreadableLog)
        ));
        state.set_log_unreadable();
        assert!(state.is_loaded() && !state.is_log_known());
        let log = br#"{"number":2,"topic":"submissions-2","partitions":12,"region":"north"}"#;
        let Some(ControlRecord::ActiveLog(log)) =
            ControlRecord::of(ACTIVE_LOG_KEY.as_bytes(), Some(log))
        else {
            panic!("unknown members of an active log are ignored");
        };
        state.update_log(log);
        assert!(state.is_log_known());
    }
}
