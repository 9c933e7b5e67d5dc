//! Sealing a topic, so that its brokers reject every append.
//!
//! A topic is sealed by setting its largest record to one byte, which is less than any record has. The brokers then
//! reject every append, also that of a producer that was suspended meanwhile, and still serve reads. A topic with
//! another limit below a batch's size would look sealed: it is refused at the start (`topic_settings`).

use std::time::Duration;

use parking_lot::Mutex;
use rdkafka::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use schemas::{
    Action, BudgetId, LogRef, PartitionId, PersonKey, RecordEncoder, Submission, SubmissionId,
    partition_for,
};
use uuid::Uuid;

use super::KafkaConfig;
use super::topic_migration_error::TopicMigrationError;

const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// The value of [`MAX_MESSAGE_BYTES`](super::topic_error::MAX_MESSAGE_BYTES) in a sealed topic.
pub(super) const SEALED_MAX_BYTES: &str = "1";

/// Returns whether the broker rejected a record because its topic is sealed. The broker checks this first.
pub(super) fn is_sealed_rejection(error: &KafkaError) -> bool {
    error.rdkafka_error_code() == Some(RDKafkaErrorCode::MessageSizeTooLarge)
}

/// Appends a probe to every partition, and returns whether all of them were rejected. Blocks.
///
/// A probe is the withdrawal of a random person: if it is accepted, it changes no totals.
pub(super) fn probe_rejects_appends(
    config: &KafkaConfig,
    log: &LogRef,
    budget: &BudgetId,
) -> Result<bool, TopicMigrationError> {
    let producer: BaseProducer<ProbeResults> = config
        .client()
        .set("acks", "all")
        .set("message.send.max.retries", "0")
        .set("message.timeout.ms", PROBE_TIMEOUT.as_millis().to_string())
        .set("linger.ms", "0")
        .create_with_context(ProbeResults::default())
        .map_err(TopicMigrationError::new)?;
    for partition in log.partitions.partitions() {
        let person = probe_person_for(partition, log);
        let withdrawal = RecordEncoder::default().encode_with_generated_id(&Submission {
            budget: budget.clone(),
            person,
            id: SubmissionId(Uuid::new_v4()),
            accepted_at_ms: 0,
            action: Action::Withdraw,
        });
        let record = BaseRecord::<[u8], [u8]>::to(&log.topic)
            .partition(partition.0 as i32)
            .key(person.as_bytes().as_slice())
            .payload(&withdrawal);
        producer.send(record).map_err(|(error, _)| TopicMigrationError::new(error))?;
    }
    producer.flush(PROBE_TIMEOUT * 2).map_err(TopicMigrationError::new)?;
    let results = producer.context().take();
    if results.len() != log.partitions.get() as usize {
        return Err(TopicMigrationError::new("some partitions did not answer the probe"));
    }
    let mut all_rejected = true;
    for result in results {
        match result {
            Ok(()) => all_rejected = false,
            Err(error) if is_sealed_rejection(&error) => {}
            Err(error) => return Err(TopicMigrationError::new(error)),
        }
    }
    Ok(all_rejected)
}

/// Returns a random person whose records belong to the partition.
fn probe_person_for(partition: PartitionId, log: &LogRef) -> PersonKey {
    loop {
        let person = PersonKey::from_bytes(*Uuid::new_v4().as_bytes());
        if partition_for(&person, log.partitions) == partition {
            return person;
        }
    }
}

/// The brokers' results of the probes.
#[derive(Default)]
struct ProbeResults(Mutex<Vec<Result<(), KafkaError>>>);

impl ProbeResults {
    fn take(&self) -> Vec<Result<(), KafkaError>> {
        std::mem::take(&mut *self.0.lock())
    }
}

impl ClientContext for ProbeResults {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "kafka client error while probing a sealed topic");
    }
}

impl ProducerContext for ProbeResults {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let result = result.as_ref().map(drop).map_err(|(error, _)| error.clone());
        self.0.lock().push(result);
    }
}
