//! Changes of the control topic: reads the committed state to its end, and writes, in Kafka transactions.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use rdkafka::consumer::BaseConsumer;
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use schemas::{
    AnnulmentChange, AnnulmentRegister, Budget, BudgetId, LogRef, SecretFingerprint, SerialSet,
    StoredAnnulments, StoredBudget, StoredRevocations,
};
use serde::Serialize;

use super::client_context::QuietContext;
use super::record::{
    ACTIVE_LOG_KEY, ANNULMENTS_KEY_PREFIX, ControlRecord, REVOKED_KEY_PREFIX, SECRET_KEY,
};
use super::{committed_end, consumers};
use crate::control::Catalog;
use crate::control::annulments::{self, AnnulmentChangeError, ChangedRegister};
use crate::control::revocations::{self, RevokeError};
use crate::log::kafka::KafkaConfig;
use crate::log::kafka::client_threads::DropOnThread;

const STEP_TIMEOUT: Duration = Duration::from_secs(5);

/// A producer that has fenced all others, and the committed state that it has read.
///
/// It knows the committed state until another producer fences it. From then on nothing that it writes is committed.
pub(super) struct WriteSession {
    producer: DropOnThread<BaseProducer<QuietContext>>,
    /// The committed definitions.
    pub catalog: Catalog,
    /// The committed active log.
    active_log: CommittedRecord<LogRef>,
    /// The committed fingerprint of the person secret.
    secret: CommittedRecord<SecretFingerprint>,
    /// The committed records of revoked codes.
    revoked: BTreeMap<BudgetId, StoredRevocations>,
    /// The committed documents of annulments.
    annulments: BTreeMap<BudgetId, StoredAnnulments>,
}

/// A record of the topic as it is committed.
enum CommittedRecord<T> {
    Absent,
    Known(T),
    /// Only a newer release can read it.
    Unreadable,
}

/// Why a record was not written.
#[derive(Debug, thiserror::Error)]
pub(super) enum WriteError {
    /// Fenced by another change, Kafka is unavailable, or the outcome is unknown.
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    /// Writing over the committed record would destroy what a newer release wrote.
    #[error("the committed record is unreadable, and is not replaced: a newer release wrote it")]
    Unreadable,
}

/// Fences all concurrent changes and reads the committed state.
///
/// What the former producers have begun has ended by then, so that the end which the leader names is behind it.
pub(super) fn open(config: &KafkaConfig) -> KafkaResult<WriteSession> {
    let producer: BaseProducer<QuietContext> = config
        .client()
        .set("transactional.id", &config.control_topic)
        .set("transaction.timeout.ms", STEP_TIMEOUT.as_millis().to_string())
        .create_with_context(QuietContext::new(config)?)?;
    let producer = DropOnThread::new(producer);
    producer.init_transactions(STEP_TIMEOUT)?;
    let consumer = consumers::from_start(config)?;
    let deadline = Instant::now() + STEP_TIMEOUT;
    // Asked for after the fencing: nobody else commits between this end and the decision.
    let offsets = committed_end::fetch_offsets(&consumer, config)?;
    WriteSession::read(producer, &consumer, &offsets, deadline)
}

/// Announces the active log unless it or a later one is announced already. Returns the log that is announced then.
pub(super) fn announce_log(config: &KafkaConfig, log: &LogRef) -> Result<LogRef, WriteError> {
    let opened = open(config)?;
    match &opened.active_log {
        CommittedRecord::Unreadable => Err(WriteError::Unreadable),
        CommittedRecord::Known(announced) if announced.number >= log.number => {
            Ok(announced.clone())
        }
        CommittedRecord::Known(_) | CommittedRecord::Absent => {
            opened.write(config, ACTIVE_LOG_KEY, log)?;
            Ok(log.clone())
        }
    }
}

/// Records the fingerprint of the person secret unless one is recorded. Returns the recorded one.
pub(super) fn record_secret(
    config: &KafkaConfig,
    fingerprint: &SecretFingerprint,
) -> Result<SecretFingerprint, WriteError> {
    let opened = open(config)?;
    match &opened.secret {
        CommittedRecord::Unreadable => Err(WriteError::Unreadable),
        CommittedRecord::Known(recorded) => Ok(recorded.clone()),
        CommittedRecord::Absent => {
            opened.write(config, SECRET_KEY, fingerprint)?;
            Ok(fingerprint.clone())
        }
    }
}

/// Adds revoked codes to a budget's record, and returns all that are revoked then.
pub(super) fn revoke(
    config: &KafkaConfig,
    budget: &BudgetId,
    serials: &SerialSet,
) -> Result<Result<SerialSet, RevokeError>, WriteError> {
    let opened = open(config)?;
    let current = opened.revoked.get(budget);
    let next = match revocations::revoke(current, serials) {
        Ok(Some(next)) => next,
        Ok(None) => {
            let known = current.and_then(StoredRevocations::serials);
            return Ok(Ok(known.cloned().unwrap_or_default()));
        }
        Err(refused) => return Ok(Err(refused)),
    };
    let key = format!("{REVOKED_KEY_PREFIX}{budget}");
    opened.write_json(config, &key, StoredRevocations::record(budget, &next).as_bytes())?;
    Ok(Ok(next))
}

/// Writes the committed definition of a budget again, if this release understands it.
pub(super) fn repeat_budget(config: &KafkaConfig, id: &BudgetId) -> Result<(), WriteError> {
    let mut opened = open(config)?;
    match opened.catalog.changeable(id.as_str()) {
        Ok(Some(budget)) => {
            let budget = budget.clone();
            Ok(opened.write_budget(config, &budget)?)
        }
        Ok(None) => Ok(()),
        Err(_) => Err(WriteError::Unreadable),
    }
}

/// Changes a budget's annulments, and returns the resulting ones.
pub(super) fn change_annulments(
    config: &KafkaConfig,
    budget: &BudgetId,
    change: &AnnulmentChange,
) -> Result<Result<AnnulmentRegister, AnnulmentChangeError>, WriteError> {
    let opened = open(config)?;
    let current = opened.annulments.get(budget).cloned().unwrap_or_default();
    let ChangedRegister { register, is_changed } = match annulments::change(current, change) {
        Ok(changed) => changed,
        Err(refused) => return Ok(Err(refused)),
    };
    if is_changed {
        let key = format!("{ANNULMENTS_KEY_PREFIX}{budget}");
        let document = StoredAnnulments::document(budget, &register);
        opened.write_json(config, &key, document.as_bytes())?;
    }
    Ok(Ok(register))
}

impl WriteSession {
    /// Reads the committed state, which has these offsets.
    fn read(
        producer: DropOnThread<BaseProducer<QuietContext>>,
        consumer: &BaseConsumer<QuietContext>,
        offsets: &Range<i64>,
        deadline: Instant,
    ) -> KafkaResult<Self> {
        let mut session = Self {
            producer,
            catalog: Catalog::default(),
            active_log: CommittedRecord::Absent,
            secret: CommittedRecord::Absent,
            revoked: BTreeMap::new(),
            annulments: BTreeMap::new(),
        };
        committed_end::read_until(consumer, offsets, deadline, |record| session.apply(record))?;
        Ok(session)
    }

    fn apply(&mut self, record: ControlRecord) {
        match record {
            ControlRecord::Budget(id, stored) => {
                self.catalog = self.catalog.with_stored(&id, *stored);
            }
            ControlRecord::ActiveLog(log) => self.active_log = CommittedRecord::Known(log),
            ControlRecord::UnreadableLog => self.active_log = CommittedRecord::Unreadable,
            ControlRecord::Secret(known) => self.secret = CommittedRecord::Known(known),
            ControlRecord::UnreadableSecret => self.secret = CommittedRecord::Unreadable,
            ControlRecord::Revoked(budget, stored) => {
                self.revoked.insert(budget, stored);
            }
            ControlRecord::Annulments(budget, stored) => {
                self.annulments.insert(budget, stored);
            }
        }
    }

    /// Writes a definition and commits.
    pub fn write_budget(&mut self, config: &KafkaConfig, budget: &Budget) -> KafkaResult<()> {
        let Ok(json) = StoredBudget::document(budget) else { return Err(KafkaError::Canceled) };
        self.write_json(config, budget.id.as_str(), json.as_bytes())?;
        self.catalog =
            self.catalog.with_stored(&budget.id, StoredBudget::Understood(budget.clone()));
        Ok(())
    }

    /// Writes the deletion of a definition and commits. No tombstone: compaction would remove its revision.
    pub fn write_deletion(
        &mut self,
        config: &KafkaConfig,
        id: &BudgetId,
        revision: u64,
    ) -> KafkaResult<()> {
        self.write_json(config, id.as_str(), StoredBudget::deletion(id, revision).as_bytes())?;
        self.catalog = self.catalog.with_stored(id, StoredBudget::Deleted { revision });
        Ok(())
    }

    fn write(&self, config: &KafkaConfig, key: &str, value: &impl Serialize) -> KafkaResult<()> {
        let Ok(json) = serde_json::to_vec(value) else { return Err(KafkaError::Canceled) };
        self.write_json(config, key, &json)
    }

    fn write_json(&self, config: &KafkaConfig, key: &str, json: &[u8]) -> KafkaResult<()> {
        self.producer.begin_transaction()?;
        let record =
            BaseRecord::<str, [u8]>::to(&config.control_topic).partition(0).key(key).payload(json);
        self.producer.send(record).map_err(|(error, _)| error)?;
        self.producer.commit_transaction(STEP_TIMEOUT)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::control::kafka::committed_end::tests::cluster_with_a_definition;

    #[test]
    fn no_change_is_decided_on_less_than_the_leader_has_named_as_committed() {
        let (_cluster, config) = cluster_with_a_definition();
        let session = open(&config).unwrap();
        assert!(session.catalog.get("parks").is_some());
        // A leader that serves fewer records than the former one had committed.
        let consumer = consumers::from_start(&config).unwrap();
        let deadline = Instant::now() + Duration::from_secs(2);
        assert!(WriteSession::read(session.producer, &consumer, &(0..2), deadline).is_err());
    }
}
