//! Follows the control topic in a thread, and maintains the state that both views read.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rdkafka::Message;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use schemas::{
    BudgetId, LogRef, RevokedCodes, SecretFingerprint, StoredAnnulments, StoredBudget,
    StoredRevocations,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::client_context::QuietContext;
use super::committed_end::InitialRead;
use super::consumers::{self, POLL_INTERVAL};
use super::record::ControlRecord;
use crate::control::Catalog;
use crate::log::kafka::KafkaConfig;
use crate::log::kafka::keep_awake::keep_awake;

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
        let known = self.annulments.lock();
        known.get(budget).cloned().unwrap_or_default()
    }

    /// Sets the annulments of a budget. Only the follower knows the order of documents.
    fn set_annulments(&self, budget: BudgetId, stored: StoredAnnulments) {
        let mut known = self.annulments.lock();
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

/// Starts the follower's thread.
pub(super) fn spawn(
    config: KafkaConfig,
    state: Arc<State>,
    stop: CancellationToken,
) -> std::io::Result<()> {
    std::thread::Builder::new().name("definitions".into()).spawn(move || {
        let mut applied = AppliedRecords::default();
        while !stop.is_cancelled() {
            if let Err(error) = follow(&config, &state, &mut applied, &stop) {
                let retry_in_ms = RECONNECT_DELAY.as_millis() as u64;
                tracing::warn!(%error, retry_in_ms, "failed to follow the control topic, retrying");
                std::thread::sleep(RECONNECT_DELAY);
            }
        }
    })?;
    Ok(())
}

/// The offset behind the last record that was applied. Pure.
///
/// A follower that reconnects reads the topic from its start again. An earlier document of annulments must not replace
/// the latest one meanwhile: unlike the other records, these documents have no order of their own.
#[derive(Debug, Default)]
struct AppliedRecords {
    next: i64,
}

impl AppliedRecords {
    /// Records that a record was read. Returns whether it was for the first time.
    fn is_first_read(&mut self, offset: i64) -> bool {
        let is_first = offset >= self.next;
        self.next = self.next.max(offset.saturating_add(1));
        is_first
    }

    /// Whether a topic that ends behind this record, if any, is another one than was read before, or has lost its end.
    fn exceed(&self, last: Option<i64>) -> bool {
        last.map_or(0, |offset| offset.saturating_add(1)) < self.next
    }
}

fn follow(
    config: &KafkaConfig,
    state: &State,
    applied: &mut AppliedRecords,
    stop: &CancellationToken,
) -> KafkaResult<()> {
    let consumer = consumers::from_start(config)?;
    keep_awake(&consumer, || poll_until(&consumer, config, state, applied, stop))
}

fn poll_until(
    consumer: &BaseConsumer<QuietContext>,
    config: &KafkaConfig,
    state: &State,
    applied: &mut AppliedRecords,
    stop: &CancellationToken,
) -> KafkaResult<()> {
    let (mut initial_read, mut last_read) = (InitialRead::default(), None);
    while !stop.is_cancelled() {
        let polled = consumer.poll(POLL_INTERVAL);
        consumer.context().rebootstrap.restore_brokers(consumer.client());
        if consumer.context().connections.is_stuck() {
            return Err(KafkaError::Global(RDKafkaErrorCode::AllBrokersDown));
        }
        match polled {
            Some(Ok(message)) => {
                last_read = Some(message.offset());
                let is_first_read = applied.is_first_read(message.offset());
                match ControlRecord::parse(&message) {
                    Some(record) => apply(state, record, message.offset(), is_first_read),
                    None => tracing::warn!(
                        offset = message.offset(),
                        "ignored a record of the control topic with an unknown key"
                    ),
                }
            }
            Some(Err(KafkaError::PartitionEOF(_))) if applied.exceed(last_read) => {
                // All records count as unread.
                *applied = AppliedRecords::default();
                return Err(KafkaError::Global(RDKafkaErrorCode::OffsetOutOfRange));
            }
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

fn apply(state: &State, record: ControlRecord, offset: i64, is_first_read: bool) {
    match record {
        ControlRecord::Budget(id, stored) => state.update_budget(&id, &stored),
        ControlRecord::ActiveLog(log) => state.update_log(log),
        ControlRecord::UnreadableLog => {
            state.set_log_unreadable();
            tracing::error!(
                offset,
                "record of the active log is unreadable: it is damaged, or a newer release wrote it"
            );
        }
        ControlRecord::Secret(fingerprint) => state.set_secret(fingerprint),
        ControlRecord::UnreadableSecret => tracing::error!(
            offset,
            "record of the person secret is unreadable: it is damaged, or a newer release wrote it"
        ),
        ControlRecord::Revoked(budget, stored) => {
            if stored == StoredRevocations::Unreadable {
                tracing::error!(
                    %budget,
                    offset,
                    "record of revoked codes is unreadable: it is damaged, or a newer release wrote it; no code of the \
                     budget is accepted"
                );
            }
            state.add_revoked(&budget, stored);
        }
        ControlRecord::Annulments(..) if !is_first_read => {}
        ControlRecord::Annulments(budget, stored) => {
            if stored == StoredAnnulments::Unreadable {
                tracing::error!(
                    %budget,
                    offset,
                    "list of annulments is unreadable: it is damaged, or a newer release wrote it"
                );
            }
            state.set_annulments(budget, stored);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::kafka::record::ACTIVE_LOG_KEY;

    #[test]
    fn a_second_read_from_the_start_replaces_no_annulments_by_earlier_ones() {
        let (state, mut applied) = (State::default(), AppliedRecords::default());
        let Ok(budget) = BudgetId::parse("taxes") else { panic!("a valid id") };
        // The first document cannot be read, the second is an empty list.
        let mut read = |offset, stored: &StoredAnnulments| {
            let record = ControlRecord::Annulments(budget.clone(), stored.clone());
            apply(&state, record, offset, applied.is_first_read(offset));
            state.annulments(&budget)
        };
        let (earlier, latest) = (StoredAnnulments::Unreadable, StoredAnnulments::default());
        assert_eq!(read(3, &earlier), earlier);
        assert_eq!(read(7, &latest), latest);
        assert_eq!(read(3, &earlier), latest);
        assert_eq!(read(7, &latest), latest);
        assert_eq!(read(8, &earlier), earlier);
        assert!(!applied.exceed(Some(8)));
        assert!(applied.exceed(Some(7)) && applied.exceed(None), "the topic has lost its end");
        assert!(!AppliedRecords::default().exceed(None));
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
