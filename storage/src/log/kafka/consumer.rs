//! A consumer that joins no group, for reading positions of one log.

use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{ClientConfig, ClientContext, Statistics};
use schemas::LogRef;

use super::KafkaConfig;
use super::connection_watch::ConnectionWatch;
use super::keep_awake::AWAKE_STATISTICS_INTERVAL_MS;

/// A consumer that joins no group and is polled.
pub(super) type ReaderConsumer = BaseConsumer<ReaderContext>;

/// The context of a consumer that joins no group.
#[derive(Default)]
pub(super) struct ReaderContext {
    pub connections: ConnectionWatch,
}

impl ClientContext for ReaderContext {
    fn stats(&self, statistics: Statistics) {
        self.connections.check(&statistics);
    }
}

impl ConsumerContext for ReaderContext {}

/// Creates a client for requests alone: what is not polled must have no statistics.
pub(super) fn create_client(
    config: &KafkaConfig,
    log: &LogRef,
) -> Result<BaseConsumer, KafkaError> {
    reader_config(config, log).create()
}

/// Creates a consumer that joins no group and is polled.
pub(super) fn create_consumer(
    config: &KafkaConfig,
    log: &LogRef,
) -> Result<ReaderConsumer, KafkaError> {
    reader_config(config, log)
        .set("statistics.interval.ms", AWAKE_STATISTICS_INTERVAL_MS)
        .create_with_context(ReaderContext::default())
}

fn reader_config(config: &KafkaConfig, log: &LogRef) -> ClientConfig {
    let mut reader = config.client();
    reader
        // Required by the client, which joins no group and commits nothing.
        .set("group.id", format!("{}-readers", log.topic))
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "error")
        .set("fetch.wait.max.ms", "100")
        .set("queued.max.messages.kbytes", "4096");
    reader
}

/// Returns whether the log has no record at the position that was asked for.
pub(super) fn is_out_of_range(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange)
    )
}
