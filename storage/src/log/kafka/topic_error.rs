//! Why a topic cannot be used, and what the operator can do about it.

use super::KafkaConfig;
use crate::open_error::OpenError;

/// The setting for the replicas that must have a record before it is acknowledged.
pub(super) const MIN_INSYNC_REPLICAS: &str = "min.insync.replicas";
/// The setting for the largest batch of records, which also seals a topic.
pub(super) const MAX_MESSAGE_BYTES: &str = "max.message.bytes";

/// Why the topics cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// Kafka is unavailable: try again.
    #[error("Kafka at {brokers} does not respond: {reason}")]
    Unavailable {
        /// The configured brokers.
        brokers: String,
        /// The client's error.
        reason: String,
    },
    /// The topic does not exist, or its settings may not be read: try again.
    #[error("settings of topic `{topic}` cannot be read: {reason}")]
    UnreadableSettings {
        /// The topic.
        topic: String,
        /// The broker's error.
        reason: String,
    },
    /// The topic has another partition count: keys would change partitions, and people would be counted twice.
    #[error(
        "topic `{topic}` has {found} partitions, but this generation has {expected}: set `log.partitions` to what the \
         generation was started with, and repartition into a new topic with `processor repartition`"
    )]
    Partitions {
        /// The topic.
        topic: String,
        /// The topic's partition count.
        found: usize,
        /// The expected partition count.
        expected: u32,
    },
    /// The control topic or the topic of dead letters has several partitions: its records would have no order.
    #[error(
        "topic `{topic}` has {found} partitions and must have one: restore it, or name another topic by \
         `kafka.definitions_topic` (control records) or `kafka.topic` (submissions and their dead letters)"
    )]
    AuxiliaryPartitions {
        /// The topic.
        topic: String,
        /// The topic's partition count.
        found: usize,
    },
    /// An acknowledged record could be lost with fewer than half of its replicas.
    #[error(
        "topic `{topic}` has min.insync.replicas={found}, but with kafka.replication_factor={replication_factor} it must \
         be at least {required}: `kafka-configs --alter --entity-type topics --entity-name {topic} --add-config \
         min.insync.replicas={required}`; or, if the topic has one replica on purpose, set kafka.replication_factor=1"
    )]
    Durability {
        /// The topic.
        topic: String,
        /// The topic's setting.
        found: u32,
        /// The lowest setting that is accepted.
        required: u32,
        /// The configured replication factor.
        replication_factor: u32,
    },
    /// The brokers could reject batches of the producer: to it, the topic would look sealed.
    #[error(
        "topic `{topic}` has max.message.bytes={found}, but a batch of records may have {required} bytes: \
         `kafka-configs --alter --entity-type topics --entity-name {topic} --add-config max.message.bytes={required}`, \
         or a higher value"
    )]
    SmallRecords {
        /// The topic.
        topic: String,
        /// The topic's setting.
        found: u64,
        /// The lowest setting that is accepted.
        required: u64,
    },
}

impl TopicError {
    /// Returns the topic and the setting of it that is refused, if that is the reason.
    pub fn refused_setting(&self) -> Option<(&str, &'static str)> {
        match self {
            Self::Durability { topic, .. } => Some((topic, MIN_INSYNC_REPLICAS)),
            Self::SmallRecords { topic, .. } => Some((topic, MAX_MESSAGE_BYTES)),
            Self::Unavailable { .. }
            | Self::UnreadableSettings { .. }
            | Self::Partitions { .. }
            | Self::AuxiliaryPartitions { .. } => None,
        }
    }

    /// Returns the topic whose settings cannot be read, if that is the reason.
    pub fn unreadable_topic(&self) -> Option<&str> {
        match self {
            Self::UnreadableSettings { topic, .. } => Some(topic),
            _ => None,
        }
    }

    pub(super) fn unavailable(config: &KafkaConfig, reason: impl ToString) -> Self {
        Self::Unavailable { brokers: config.brokers.clone(), reason: reason.to_string() }
    }
}

impl From<TopicError> for OpenError {
    fn from(error: TopicError) -> Self {
        let (backend, reason) = ("the log", error.to_string());
        match error {
            TopicError::Unavailable { .. } | TopicError::UnreadableSettings { .. } => {
                Self::Unavailable { backend, reason }
            }
            TopicError::Partitions { .. }
            | TopicError::AuxiliaryPartitions { .. }
            | TopicError::Durability { .. }
            | TopicError::SmallRecords { .. } => Self::Invalid { backend, reason },
        }
    }
}
