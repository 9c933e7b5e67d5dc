//! Why a step of a migration between topics did not succeed.

use rdkafka::error::RDKafkaErrorCode;

/// A request to Kafka failed, or its outcome is unknown: it can be repeated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Kafka: {0}")]
pub struct TopicMigrationError(String);

impl TopicMigrationError {
    pub(super) fn new(reason: impl ToString) -> Self {
        Self(reason.to_string())
    }

    pub(super) fn of_topic(topic: &str, code: RDKafkaErrorCode) -> Self {
        Self(format!("topic `{topic}`: {code}"))
    }
}
