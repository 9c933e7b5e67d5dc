//! The log on Kafka: the producers, the group consumer, readers outside the group, and the topics.

mod admin;
mod append_target;
mod bounds;
pub(crate) mod client_threads;
pub(crate) mod cluster;
pub(crate) mod connection_watch;
mod consumer;
mod dead_letter_journal;
mod dead_letter_writer;
pub(crate) mod keep_awake;
mod lanes;
mod polled_producer;
pub(crate) mod producer;
mod reader;
mod rebalance;
mod rebootstrap;
mod seal;
mod source;
mod tail;
#[cfg(test)]
mod test_config;
mod topic_error;
mod topic_migration;
mod topic_migration_error;
mod topic_settings;
pub(crate) mod topics;
mod writer;

use std::time::Duration;

use rdkafka::ClientConfig;
use schemas::{LogRef, PartitionCount};

pub use dead_letter_journal::KafkaDeadLetterJournal;
pub use dead_letter_writer::KafkaDeadLetterWriter;
pub use reader::KafkaReader;
pub(crate) use rebootstrap::Rebootstrap;
pub use source::KafkaSource;
pub use tail::KafkaTail;
pub use topic_error::TopicError;
pub use topic_migration::{CopiedRecord, LogCopier, TopicMigrator};
pub use topic_migration_error::TopicMigrationError;
pub use writer::{KafkaLogWriter, SEALED_RETRY_TIMEOUT};

/// How to connect to Kafka, and the deployment's topics.
#[derive(Debug, Clone)]
pub struct KafkaConfig {
    /// `host:port`, comma-separated.
    pub brokers: String,
    /// The topic of submissions that a new deployment starts with. Dead letters always go to `<topic>.dead-letters`.
    pub topic: String,
    /// The compacted control topic: budget definitions, active log, revoked codes, annulments.
    pub control_topic: String,
    /// The partition count of the first topic of submissions: the topic is created with it, or must have it.
    pub partitions: PartitionCount,
    /// The replication factor of topics that this program creates.
    pub replication_factor: u32,
    /// The processors' consumer group.
    pub group: String,
    /// Without a heartbeat for this long, a member loses its partitions.
    pub session_timeout: Duration,
    /// Bounds the time until a record is acknowledged.
    pub delivery_timeout: Duration,
    /// How long the producer collects records before it sends a batch.
    pub linger: Duration,
}

impl KafkaConfig {
    /// Returns the log that a new deployment starts with.
    pub fn first_log(&self) -> LogRef {
        LogRef::first(&self.topic, self.partitions)
    }

    /// Returns how many replicas must have a record before it is acknowledged: a majority.
    pub(crate) fn min_insync_replicas(&self) -> u32 {
        self.replication_factor / 2 + 1
    }

    /// Returns the topic of dead letters.
    pub fn dead_letters_topic(&self) -> String {
        format!("{}.dead-letters", self.topic)
    }

    /// Returns the topic of signals.
    pub fn signals_topic(&self) -> String {
        format!("{}.signals", self.topic)
    }

    /// Returns how long an append may take: a record that a sealed topic rejects is held and sent again.
    pub fn max_append_duration(&self) -> Duration {
        SEALED_RETRY_TIMEOUT + 2 * self.delivery_timeout
    }

    /// Returns the configuration that all clients share.
    pub(crate) fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", "allocator")
            .set("allow.auto.create.topics", "false")
            .set("socket.keepalive.enable", "true")
            .set("socket.nagle.disable", "true")
            // A broker behind a network that drops packets is abandoned after seconds, not after a minute.
            .set("socket.timeout.ms", "4000")
            .set("socket.connection.setup.timeout.ms", "4000")
            .set("api.version.request.timeout.ms", "2000")
            // Reconnect to a restarted broker at once, not after ten seconds.
            .set("reconnect.backoff.ms", "50")
            .set("reconnect.backoff.max.ms", "500")
            .set("log.connection.close", "false");
        config
    }
}
