//! The baseline of everything that folds a log: the fastest plain consumer that librdkafka offers.
//!
//! It takes whole batches off librdkafka's queue, parses nothing and checks no order. Fetches are as large as the
//! broker allows, and the queue never runs empty.

use std::ptr;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Offset, TopicPartitionList, bindings};

use crate::kafka::Kafka;

/// Messages taken off the queue at once.
const BATCH_MESSAGES: usize = 10_000;
/// Timeout for the next message.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(10);
/// Larger fetches and a longer queue: faster here than librdkafka's defaults.
const TUNING: [(&str, &str); 5] = [
    ("fetch.min.bytes", "1000000"),
    ("fetch.wait.max.ms", "100"),
    ("fetch.queue.backoff.ms", "10"),
    ("queued.min.messages", "1000000"),
    ("queued.max.messages.kbytes", "262144"),
];

/// Measures the records per second of a plain consumer that reads a whole topic.
///
/// # Errors
/// When the topic has fewer records.
pub async fn consume_plain(kafka: &Kafka, topic: &str, partitions: u32, count: u64) -> Result<f64> {
    let (client, topic) = (kafka.client(), topic.to_owned());
    tokio::task::spawn_blocking(move || count_records(client, &topic, partitions, count)).await?
}

fn count_records(
    mut client: ClientConfig,
    topic: &str,
    partitions: u32,
    count: u64,
) -> Result<f64> {
    client.set("group.id", "e2e-bare").set("enable.auto.commit", "false");
    for (key, value) in TUNING {
        client.set(key, value);
    }
    let consumer: BaseConsumer = client.create()?;
    let mut all = TopicPartitionList::new();
    for partition in 0..partitions {
        all.add_partition_offset(topic, partition as i32, Offset::Beginning)?;
    }
    let started = Instant::now();
    consumer.assign(&all)?;
    let mut queue = BatchQueue::of(&consumer);
    let (mut seen, mut last_message) = (0, Instant::now());
    while seen < count {
        let messages = queue.take()?;
        if messages > 0 {
            last_message = Instant::now();
        }
        ensure!(last_message.elapsed() < MESSAGE_TIMEOUT, "{topic} has only {seen} records");
        seen += messages;
    }
    Ok(count as f64 / started.elapsed().as_secs_f64())
}

/// The queue of a consumer, read in batches. rdkafka has no safe call for it.
struct BatchQueue<'c> {
    queue: *mut bindings::rd_kafka_queue_t,
    messages: Vec<*mut bindings::rd_kafka_message_t>,
    /// The queue must not outlive its client.
    _consumer: &'c BaseConsumer,
}

impl<'c> BatchQueue<'c> {
    #[expect(unsafe_code, reason = "rdkafka has no safe call for it")]
    fn of(consumer: &'c BaseConsumer) -> Self {
        // SAFETY: the client lives as long as `consumer`, which outlives the queue.
        let queue =
            unsafe { bindings::rd_kafka_queue_get_consumer(consumer.client().native_ptr()) };
        Self { queue, messages: vec![ptr::null_mut(); BATCH_MESSAGES], _consumer: consumer }
    }

    /// Takes a batch of messages and returns how many.
    #[expect(unsafe_code, reason = "rdkafka has no safe call for it")]
    fn take(&mut self) -> Result<u64> {
        // SAFETY: the array has room for as many pointers as it says.
        let taken = unsafe {
            bindings::rd_kafka_consume_batch_queue(
                self.queue,
                1_000,
                self.messages.as_mut_ptr(),
                self.messages.len(),
            )
        };
        let taken = usize::try_from(taken).unwrap_or(0);
        let mut failed = None;
        for message in &self.messages[..taken] {
            // SAFETY: librdkafka set this pointer to a message that is ours until it is destroyed, once.
            unsafe {
                if (**message).err != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
                    failed = Some((**message).err);
                }
                bindings::rd_kafka_message_destroy(*message);
            }
        }
        ensure!(failed.is_none(), "cannot read the topic: {failed:?}");
        Ok(taken as u64)
    }
}

impl Drop for BatchQueue<'_> {
    #[expect(unsafe_code, reason = "rdkafka has no safe call for it")]
    fn drop(&mut self) {
        // SAFETY: the queue is ours and not used afterwards.
        unsafe { bindings::rd_kafka_queue_destroy(self.queue) };
    }
}
