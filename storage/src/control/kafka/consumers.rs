//! Consumers of the control topic, which join no group.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaResult;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::client_context::QuietContext;
use crate::log::kafka::{KafkaConfig, Rebootstrap};

/// How long one poll waits for a record.
pub(super) const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Creates a consumer that reads the topic from its start, and is polled all the time.
pub(super) fn from_start(config: &KafkaConfig) -> KafkaResult<BaseConsumer<QuietContext>> {
    let consumer: BaseConsumer<QuietContext> = consumer_config(config)
        .set("statistics.interval.ms", Rebootstrap::STATISTICS_INTERVAL_MS)
        .create_with_context(QuietContext::new(config)?)?;
    let mut partitions = TopicPartitionList::new();
    partitions.add_partition_offset(&config.control_topic, 0, Offset::Beginning)?;
    consumer.assign(&partitions)?;
    Ok(consumer)
}

/// Creates a consumer that reads nothing. It has no statistics: the queue of one that is rarely polled would grow.
pub(super) fn idle(config: &KafkaConfig) -> KafkaResult<BaseConsumer<QuietContext>> {
    consumer_config(config).create_with_context(QuietContext::new(config)?)
}

fn consumer_config(config: &KafkaConfig) -> ClientConfig {
    let mut consumer = config.client();
    consumer
        // Required by the client; no offset is ever committed to it.
        .set("group.id", format!("{}-readers", config.control_topic))
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("isolation.level", "read_committed")
        .set("auto.offset.reset", "earliest")
        .set("fetch.wait.max.ms", "100");
    consumer
}
