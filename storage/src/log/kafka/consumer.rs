//! Consumers that join no group, for reading positions of one log; and how often a consumer makes statistics.

use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{ClientConfig, ClientContext, Statistics};
use schemas::{LogRef, PartitionCount};

use super::KafkaConfig;
use super::connection_watch::ConnectionWatch;

/// How often the lag is updated, and a partition that cannot be read is noticed, at least.
const MIN_STATISTICS_INTERVAL_MS: u32 = 100;
/// Minimum interval of a tail consumer, which reads nothing but connection states from them.
const MIN_TAIL_STATISTICS_INTERVAL_MS: u32 = 1_000;
const STATISTICS_INTERVAL_MS_EACH_PARTITION: u32 = 4;

/// Up to so many partitions, a fetch is answered as soon as there is a record.
const FETCHED_AT_ONCE_PARTITIONS: u32 = 128;
const FETCH_MIN_BYTES_EACH_PARTITION: u32 = 64;

/// The context of a consumer that is polled all the time.
#[derive(Default)]
pub(super) struct TailContext {
    pub connections: ConnectionWatch,
}

impl ClientContext for TailContext {
    fn stats(&self, statistics: Statistics) {
        self.connections.check(&statistics);
    }
}

impl ConsumerContext for TailContext {}

/// Creates a consumer that joins no group. It has no statistics: the queue of one that is rarely polled would grow.
pub(super) fn create_consumer(
    config: &KafkaConfig,
    log: &LogRef,
) -> Result<BaseConsumer, KafkaError> {
    reader_config(config, log).create()
}

/// Creates a consumer that joins no group and is polled all the time.
pub(super) fn create_tail_consumer(
    config: &KafkaConfig,
    log: &LogRef,
) -> Result<BaseConsumer<TailContext>, KafkaError> {
    let interval_ms = statistics_interval_ms(log.partitions).max(MIN_TAIL_STATISTICS_INTERVAL_MS);
    reader_config(config, log)
        .set("statistics.interval.ms", interval_ms.to_string())
        .create_with_context(TailContext::default())
}

/// Returns an interval at which statistics cost a small part of a core.
///
/// They name every partition of the topic, whoever has it: 730 bytes each, which take librdkafka and the poll thread some
/// microseconds each. So it is four seconds at 1,024 partitions.
pub(super) fn statistics_interval_ms(partitions: PartitionCount) -> u32 {
    MIN_STATISTICS_INTERVAL_MS.max(partitions.get() * STATISTICS_INTERVAL_MS_EACH_PARTITION)
}

/// Returns how many bytes a broker waits for before it answers a fetch, at most for `fetch.wait.max.ms`.
///
/// A fetch names every partition that the member has on the broker, and costs the broker some microseconds for each. With
/// few partitions each new record is answered at once. With many, the broker would read all of them for each record.
pub(super) fn fetch_min_bytes(partitions: PartitionCount) -> u32 {
    if partitions.get() <= FETCHED_AT_ONCE_PARTITIONS {
        1
    } else {
        partitions.get() * FETCH_MIN_BYTES_EACH_PARTITION
    }
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
