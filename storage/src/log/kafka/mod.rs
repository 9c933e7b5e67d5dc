//! The log on Kafka: an idempotent producer, a group consumer that starts where it is told, and the topics.

mod letter_book;
mod moving;
mod producer;
mod reader;
mod rebalance;
mod rebootstrap;
mod source;
pub(crate) mod topics;
mod writer;

use std::time::Duration;

use rdkafka::ClientConfig;
use schemas::{LogRef, PartitionCount};

pub use letter_book::KafkaLetterBook;
pub use moving::{CopiedRecord, LogCopier, LogMover, MoveError};
pub use reader::KafkaReader;
pub(crate) use rebootstrap::Rebootstrap;
pub use source::KafkaSource;
pub use topics::TopicError;
pub use writer::{KafkaDeadLetters, KafkaLog, SEALED_PATIENCE};

/// How to reach Kafka, and which topics are ours.
#[derive(Debug, Clone)]
pub struct KafkaConfig {
    /// `host:port`, comma-separated.
    pub brokers: String,
    /// The topic of submissions that a new deployment begins with. The dead letters are in `<topic>.dead-letters`, for ever.
    pub topic: String,
    /// The compacted topic of budgets' definitions.
    pub definitions_topic: String,
    /// How many partitions that one has: created so, and refused otherwise.
    pub partitions: PartitionCount,
    /// How many copies the brokers keep of each partition of a topic that we create.
    pub replication_factor: u32,
    /// The processors' consumer group.
    pub group: String,
    /// After how much silence the group gives a member's partitions away.
    pub session_timeout: Duration,
    /// How long a record may take to be acknowledged.
    pub delivery_timeout: Duration,
    /// How long the producer waits for more records before it sends a batch.
    pub linger: Duration,
}

impl KafkaConfig {
    /// The log that a new deployment begins with.
    pub fn first_log(&self) -> LogRef {
        LogRef::first(&self.topic, self.partitions)
    }

    /// The topic of records that the fold could not take.
    pub fn dead_letters_topic(&self) -> String {
        format!("{}.dead-letters", self.topic)
    }

    /// What every client of ours has in common.
    pub(crate) fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", "allocator")
            .set("allow.auto.create.topics", "false")
            .set("socket.keepalive.enable", "true")
            .set("socket.nagle.disable", "true")
            // A broker whose bytes a network swallows is given up after seconds, not after a minute.
            .set("socket.timeout.ms", "4000")
            .set("socket.connection.setup.timeout.ms", "4000")
            .set("api.version.request.timeout.ms", "2000")
            // A broker that is back should be noticed at once, not after ten seconds.
            .set("reconnect.backoff.ms", "50")
            .set("reconnect.backoff.max.ms", "500")
            .set("log.connection.close", "false");
        config
    }
}
