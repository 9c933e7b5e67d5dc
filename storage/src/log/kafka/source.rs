//! The group consumer: one thread that polls, packs records by partition, and hands them over.
//!
//! When an owner has no room, its partition is paused and everything else goes on; polling never stops, so the group
//! keeps this member.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Message, Offset as KafkaOffset, TopicPartitionList};
use schemas::{LogRef, Offset, PartitionId};
use tokio_util::sync::CancellationToken;

use super::rebalance::{Changed, Rebalances};
use super::topics::{TopicError, ensure_topics, log_identity};
use super::{KafkaConfig, Rebootstrap};
use crate::log::{LogIdentity, LogSource, PartitionHandler, Record, RecordBatch, SourceError};

const BATCH_RECORDS: usize = 2_000;
const BATCH_BYTES: usize = 1 << 20;
/// How long a full owner is waited for before its partition is paused: pausing throws fetched records away.
const PATIENCE: Duration = Duration::from_millis(100);
const IDLE_POLL: Duration = Duration::from_millis(50);
/// How often an owner without room is offered its batch again.
const RETRY_POLL: Duration = Duration::from_millis(2);
/// How long what was fetched of one partition may wait while others keep coming; looked at every so many records.
const LONGEST_BUFFERING: Duration = Duration::from_millis(20);
const RECORDS_BETWEEN_LOOKS: u32 = 256;
const ADVISORY_COMMIT_INTERVAL: Duration = Duration::from_secs(1);
/// Members learn of a rebalance, and so let go of what moves, by the answer to a heartbeat.
const HEARTBEAT_INTERVAL_MS: &str = "100";
/// How fresh the lag is. It is also how often librdkafka looks whether a heartbeat or a join is due: it wakes for its
/// timers only, and the next slower one is twice a second.
const STATISTICS_INTERVAL_MS: &str = "100";
/// librdkafka joins at most once a second, except after an answer to a request for metadata. A partition that moves
/// takes two joins of every member, one to let go of it and one to take it; without this the second one waits.
const METADATA_INTERVAL_MS: &str = "100";

/// A member of the processors' group.
pub struct KafkaSource {
    config: KafkaConfig,
    identity: LogIdentity,
}

impl KafkaSource {
    /// Creates the topics if they are absent, that of `log` too if it is the one that a deployment begins with, and finds out
    /// which cluster this is.
    ///
    /// # Errors
    /// When Kafka does not answer, or the topic has another partition count than the log.
    pub async fn open(config: &KafkaConfig, log: &LogRef) -> Result<Self, TopicError> {
        ensure_topics(config, log).await?;
        Ok(Self { config: config.clone(), identity: log_identity(config).await? })
    }

    fn consumer<'h>(
        &self,
        log: &LogRef,
        handler: &'h dyn PartitionHandler,
    ) -> Result<Consumption<'h>, KafkaError> {
        let context = Rebalances {
            handler,
            topic: log.topic.clone(),
            changed: Mutex::new(Changed::default()),
            rebootstrap: Rebootstrap::new(&self.config.brokers)?,
        };
        let session_timeout_ms = self.config.session_timeout.as_millis().to_string();
        let consumer: BaseConsumer<Rebalances<'h>> = self
            .config
            .client()
            .set("group.id", &self.config.group)
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("session.timeout.ms", session_timeout_ms)
            .set("heartbeat.interval.ms", HEARTBEAT_INTERVAL_MS)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            .set("statistics.interval.ms", STATISTICS_INTERVAL_MS)
            .set("topic.metadata.refresh.interval.ms", METADATA_INTERVAL_MS)
            // Its default is three times that.
            .set("metadata.max.age.ms", "900000")
            .set("fetch.wait.max.ms", "100")
            .set("fetch.queue.backoff.ms", "10")
            .set("queued.max.messages.kbytes", "16384")
            .create_with_context(context)?;
        consumer.subscribe(&[&log.topic])?;
        Ok(Consumption { consumer, handler, topic: log.topic.clone(), buffers: BTreeMap::new() })
    }
}

impl LogSource for KafkaSource {
    fn identity(&self) -> LogIdentity {
        self.identity.clone()
    }

    fn run(
        &mut self,
        log: &LogRef,
        handler: &dyn PartitionHandler,
        stop: &CancellationToken,
    ) -> Result<(), SourceError> {
        let mut consumption =
            self.consumer(log, handler).map_err(|error| SourceError::Rejoin(error.to_string()))?;
        let outcome = consumption.poll_until(stop);
        // Dropping the consumer gives back what is owned, through the rebalance callback, and leaves the group, so
        // that the others need not wait for a session to time out.
        consumption.advise_committed();
        drop(consumption);
        outcome
    }
}

struct Consumption<'h> {
    consumer: BaseConsumer<Rebalances<'h>>,
    handler: &'h dyn PartitionHandler,
    topic: String,
    buffers: BTreeMap<PartitionId, Buffer>,
}

struct Buffer {
    open: RecordBatch,
    /// A batch that the owner had no room for; its partition is paused.
    stalled: Option<RecordBatch>,
    silent: bool,
}

impl Buffer {
    fn new(partition: PartitionId, silent: bool) -> Self {
        Self { open: RecordBatch::new(partition), stalled: None, silent }
    }
}

impl Consumption<'_> {
    fn poll_until(&mut self, stop: &CancellationToken) -> Result<(), SourceError> {
        let mut last_advice = Instant::now();
        let mut last_flush = Instant::now();
        let mut since_look = 0;
        let mut buffered = false;
        while !stop.is_cancelled() {
            if self.handler.wants_to_rejoin() {
                return Err(SourceError::Rejoin("a partition was claimed by somebody else".into()));
            }
            let stalled = self.buffers.values().any(|buffer| buffer.stalled.is_some());
            let wait = match (buffered, stalled) {
                (true, _) => Duration::ZERO,
                (false, true) => RETRY_POLL,
                (false, false) => IDLE_POLL,
            };
            // `poll` runs the rebalance callbacks: what they changed is taken in before the record is.
            let polled = self.consumer.poll(wait);
            let context = self.consumer.context();
            context.rebootstrap.mend(self.consumer.client());
            let changed = context.take_changed();
            if let Some(reason) = changed.broken {
                return Err(SourceError::Rejoin(reason));
            }
            for partition in changed.revoked {
                self.buffers.remove(&partition);
            }
            for partition in changed.silent {
                self.buffers.insert(partition, Buffer::new(partition, true));
            }
            match polled {
                Some(Ok(message)) => {
                    let partition = PartitionId(message.partition().max(0) as u32);
                    let buffer = self
                        .buffers
                        .entry(partition)
                        .or_insert_with(|| Buffer::new(partition, false));
                    if !buffer.silent {
                        buffer.open.push(Record {
                            offset: Offset(message.offset().max(0) as u64),
                            key: message.key().unwrap_or_default(),
                            value: message.payload().unwrap_or_default(),
                        });
                        buffered = true;
                    }
                    let full = buffer.open.len() >= BATCH_RECORDS
                        || buffer.open.size_bytes() >= BATCH_BYTES;
                    drop(message);
                    if full {
                        self.hand_over(partition);
                    }
                    since_look += 1;
                    if since_look == RECORDS_BETWEEN_LOOKS {
                        since_look = 0;
                        if last_flush.elapsed() > LONGEST_BUFFERING {
                            self.hand_over_all();
                            last_flush = Instant::now();
                        }
                    }
                }
                Some(Err(error)) => self.take_error(&error)?,
                None => {
                    self.hand_over_all();
                    last_flush = Instant::now();
                    buffered = false;
                }
            }
            if last_advice.elapsed() > ADVISORY_COMMIT_INTERVAL {
                last_advice = Instant::now();
                self.advise_committed();
            }
        }
        Ok(())
    }

    fn hand_over_all(&mut self) {
        let partitions: Vec<_> = self.buffers.keys().copied().collect();
        for partition in partitions {
            self.hand_over(partition);
        }
    }

    /// Offers the owner what is buffered, oldest first.
    fn hand_over(&mut self, partition: PartitionId) {
        let Some(buffer) = self.buffers.get_mut(&partition) else { return };
        if let Some(batch) = buffer.stalled.take() {
            match self.handler.deliver(batch, Duration::ZERO) {
                Ok(()) => self.set_paused(partition, false),
                Err(batch) => {
                    buffer.stalled = Some(batch);
                    return;
                }
            }
        }
        let Some(buffer) = self.buffers.get_mut(&partition) else { return };
        if buffer.open.is_empty() {
            return;
        }
        let batch = std::mem::replace(&mut buffer.open, RecordBatch::new(partition));
        if let Err(batch) = self.handler.deliver(batch, PATIENCE) {
            buffer.stalled = Some(batch);
            self.set_paused(partition, true);
        }
    }

    fn set_paused(&self, partition: PartitionId, paused: bool) {
        let mut list = TopicPartitionList::new();
        list.add_partition(&self.topic, partition.0 as i32);
        let outcome = if paused { self.consumer.pause(&list) } else { self.consumer.resume(&list) };
        if let Err(error) = outcome {
            tracing::warn!(%partition, paused, %error, "the partition could not be paused or resumed");
        }
    }

    fn take_error(&mut self, error: &KafkaError) -> Result<(), SourceError> {
        match error.rdkafka_error_code() {
            // What was read there is gone: the claim at the next join finds out which partition it is, and halts it.
            Some(
                RDKafkaErrorCode::AutoOffsetReset
                | RDKafkaErrorCode::OffsetOutOfRange
                | RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::UnknownTopic
                | RDKafkaErrorCode::UnknownPartition
                | RDKafkaErrorCode::TopicAuthorizationFailed
                | RDKafkaErrorCode::GroupAuthorizationFailed,
            ) => Err(SourceError::Rejoin(error.to_string())),
            _ if matches!(error, KafkaError::MessageConsumptionFatal(_)) => {
                Err(SourceError::Rejoin(error.to_string()))
            }
            // librdkafka mends the rest by itself.
            _ => {
                tracing::debug!(%error, "Kafka consumer");
                Ok(())
            }
        }
    }

    /// Tells the group where we are, for lag tools and autoscalers.
    fn advise_committed(&self) {
        let mut list = TopicPartitionList::new();
        for (partition, position) in self.handler.committed() {
            let offset = KafkaOffset::Offset(position.0 as i64);
            if let Err(error) = list.add_partition_offset(&self.topic, partition.0 as i32, offset) {
                tracing::debug!(%partition, %error, "no advisory offset");
            }
        }
        if list.count() > 0
            && let Err(error) = self.consumer.commit(&list, rdkafka::consumer::CommitMode::Async)
        {
            tracing::debug!(%error, "advisory offsets were not committed");
        }
    }
}
