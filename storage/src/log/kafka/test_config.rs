//! The configuration of tests on a mock cluster, or without brokers.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use schemas::PartitionCount;

use super::KafkaConfig;

pub(super) const DELIVERY_TIMEOUT: Duration = Duration::from_millis(800);

/// Returns a configuration of two partitions with one replica.
pub(super) fn config(brokers: String) -> KafkaConfig {
    KafkaConfig {
        brokers,
        topic: "submissions".into(),
        control_topic: "definitions".into(),
        partitions: PartitionCount::new(2).unwrap(),
        replication_factor: 1,
        group: "group".into(),
        session_timeout: Duration::from_secs(6),
        delivery_timeout: DELIVERY_TIMEOUT,
        linger: Duration::from_millis(1),
    }
}
