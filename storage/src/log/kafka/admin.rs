//! Requests that describe and change topics: their client, and their time limits.

use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;

use super::KafkaConfig;
use super::topic_error::TopicError;

/// Bounds a request that changes or describes topics.
pub(super) const ADMIN_TIMEOUT: Duration = Duration::from_secs(10);
/// How long to wait before the brokers are asked again for what they may not know yet.
pub(super) const METADATA_POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Creates the client of these requests, without connecting to Kafka.
pub(super) fn admin_client(
    config: &KafkaConfig,
) -> Result<AdminClient<DefaultClientContext>, TopicError> {
    config.client().create().map_err(|error| TopicError::unavailable(config, error))
}

/// Returns the timeouts of all requests that change or describe topics.
pub(super) fn admin_options() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(ADMIN_TIMEOUT)).request_timeout(Some(ADMIN_TIMEOUT))
}
