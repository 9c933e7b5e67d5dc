//! The group consumer: one thread that polls, packs records into batches per partition, and delivers them.
//!
//! When an owner's queue is full, only its partition is paused. A partition that cannot be read or has no owner is not
//! read, and all others are. Polling never stops, so that the group keeps this member.

mod buffers;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Message, Offset as KafkaOffset, TopicPartitionList};
use schemas::{LogRef, Offset, PartitionCount, PartitionId, Position};
use tokio_util::sync::CancellationToken;

use buffers::Buffers;

use super::bounds::KafkaBounds;
use super::cluster::log_identity;
use super::connection_watch::ConnectionWatch;
use super::consumer::{fetch_min_bytes, statistics_interval_ms};
use super::keep_awake::keep_awake;
use super::rebalance::{MemberPartitions, RebalanceContext};
use super::topic_error::TopicError;
use super::topics::ensure_topics;
use super::{KafkaConfig, Rebootstrap};
use crate::log::{
    LogIdentity, LogSource, PartitionHandler, Record, Revocation, SourceError, StartPosition,
};

/// How long a delivery waits for a full queue before its partition is paused: pausing discards fetched records.
const DELIVERY_TIMEOUT: Duration = Duration::from_millis(100);
const IDLE_POLL_TIMEOUT: Duration = Duration::from_millis(50);
/// How soon the start of a partition that is not read yet is noticed.
const START_POLL_TIMEOUT: Duration = Duration::from_millis(5);
/// How soon a batch is delivered again to an owner whose queue was full.
const REDELIVERY_DELAY: Duration = Duration::from_millis(2);
/// Bounds how long a partition's records are buffered while records of other partitions keep arriving.
const MAX_BUFFERING: Duration = Duration::from_millis(20);
/// How many records are polled between two checks of [`MAX_BUFFERING`].
const BUFFERING_CHECK_RECORDS: u32 = 256;
/// How long a member that leaves waits for the list of members.
const GROUP_TIMEOUT: Duration = Duration::from_secs(1);
/// How often positions that have moved are committed to the group.
const ADVISORY_COMMIT_INTERVAL: Duration = Duration::from_secs(1);
/// How often all positions are committed to the group: a commit during a rebalance fails.
const FULL_ADVISORY_COMMIT_INTERVAL: Duration = Duration::from_secs(10);
/// Members learn of a rebalance from the response to a heartbeat.
const HEARTBEAT_INTERVAL_MS: &str = "100";
/// Longest time between two polls. It also bounds how long a member waits for the answer to a join, which a network may have
/// lost, and how long the group waits for a member that does not join. Longer than a hand-over, during which none polls.
const MAX_POLL_INTERVAL: Duration = Duration::from_secs(45);
/// librdkafka joins at most once a second, except after a metadata response. Moving a partition takes two joins of
/// every member, one to release it and one to take it over; without frequent metadata the second join would be late.
/// This is also the timer at which librdkafka checks whether a heartbeat is due: the next slower one fires twice a
/// second.
const MIN_METADATA_INTERVAL_MS: u32 = 100;
/// Metadata name every partition of the topic, so that they come less often where there are many: after 512 ms at 1,024.
const PARTITIONS_EACH_METADATA_MS: u32 = 2;

fn metadata_interval_ms(partitions: PartitionCount) -> u32 {
    MIN_METADATA_INTERVAL_MS.max(partitions.get() / PARTITIONS_EACH_METADATA_MS)
}

/// A member of the processors' consumer group.
pub struct KafkaSource {
    config: KafkaConfig,
    identity: LogIdentity,
}

impl KafkaSource {
    /// Creates missing topics, and fetches the cluster's identity. The topic of `log` is created only if it is the
    /// deployment's first log.
    ///
    /// # Errors
    /// When Kafka is unavailable, or the topic has another partition count than the log.
    pub async fn open(config: &KafkaConfig, log: &LogRef) -> Result<Self, TopicError> {
        ensure_topics(config, log).await?;
        Ok(Self { config: config.clone(), identity: log_identity(config).await? })
    }

    fn subscribe<'h>(
        &self,
        log: &LogRef,
        handler: &'h dyn PartitionHandler,
    ) -> Result<PollLoop<'h>, KafkaError> {
        let context = RebalanceContext {
            handler,
            topic: log.topic.clone(),
            bounds: Arc::new(KafkaBounds::start(&self.config, log)?),
            partitions: Mutex::new(MemberPartitions::default()),
            rebootstrap: Rebootstrap::new(&self.config.brokers)?,
            connections: ConnectionWatch::default(),
        };
        let session_timeout_ms = self.config.session_timeout.as_millis().to_string();
        let max_poll_interval = MAX_POLL_INTERVAL.max(self.config.session_timeout);
        let consumer: BaseConsumer<RebalanceContext<'h>> = self
            .config
            .client()
            .set("group.id", &self.config.group)
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("session.timeout.ms", session_timeout_ms)
            .set("heartbeat.interval.ms", HEARTBEAT_INTERVAL_MS)
            .set("max.poll.interval.ms", max_poll_interval.as_millis().to_string())
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            .set("statistics.interval.ms", statistics_interval_ms(log.partitions).to_string())
            .set(
                "topic.metadata.refresh.interval.ms",
                metadata_interval_ms(log.partitions).to_string(),
            )
            // By default three times the metadata interval.
            .set("metadata.max.age.ms", "900000")
            .set("fetch.wait.max.ms", "100")
            .set("fetch.min.bytes", fetch_min_bytes(log.partitions).to_string())
            .set("fetch.queue.backoff.ms", "10")
            .set("queued.max.messages.kbytes", "16384")
            .create_with_context(context)?;
        consumer.subscribe(&[&log.topic])?;
        Ok(PollLoop {
            consumer: Arc::new(consumer),
            handler,
            topic: log.topic.clone(),
            buffers: Buffers::default(),
            advised: BTreeMap::new(),
            advised_all_at: Instant::now(),
        })
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
        let mut poll_loop =
            self.subscribe(log, handler).map_err(|error| SourceError::Rejoin(error.to_string()))?;
        let outcome = poll_loop.run(stop);
        let takes_over = outcome.is_ok() && poll_loop.group_has_others(&self.config.group);
        poll_loop.consumer.context().leave(match takes_over {
            true => Revocation::Moved,
            false => Revocation::Released,
        });
        // Dropping the consumer releases its partitions, through the rebalance callback, and leaves the group, so that
        // the other members need not wait for the session timeout.
        poll_loop.commit_advisory_offsets(Advice::All);
        drop(poll_loop);
        outcome
    }
}

struct PollLoop<'h> {
    consumer: Arc<BaseConsumer<RebalanceContext<'h>>>,
    handler: &'h dyn PartitionHandler,
    topic: String,
    buffers: Buffers,
    /// The positions that were last committed to the group.
    advised: BTreeMap<PartitionId, Position>,
    advised_all_at: Instant,
}

/// The positions that are committed to the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Advice {
    Moved,
    All,
}

impl PollLoop<'_> {
    fn run(&mut self, stop: &CancellationToken) -> Result<(), SourceError> {
        let consumer = Arc::clone(&self.consumer);
        keep_awake(&consumer, || self.poll_until(stop))
    }

    fn poll_until(&mut self, stop: &CancellationToken) -> Result<(), SourceError> {
        let mut last_commit = Instant::now();
        let mut last_flush = Instant::now();
        let mut since_check = 0;
        let (mut buffered, mut any_waiting) = (false, false);
        while !stop.is_cancelled() {
            if self.handler.wants_to_rejoin() {
                return Err(SourceError::Rejoin("the partitions are to be claimed anew".into()));
            }
            self.apply_starts()?;
            let timeout = match (buffered, self.buffers.has_undelivered(), any_waiting) {
                (true, ..) => Duration::ZERO,
                (false, true, _) => REDELIVERY_DELAY,
                (false, false, true) => START_POLL_TIMEOUT,
                (false, false, false) => IDLE_POLL_TIMEOUT,
            };
            // `poll` runs the rebalance callbacks: their changes are applied before the polled record is.
            let polled = self.consumer.poll(timeout);
            let context = self.consumer.context();
            context.rebootstrap.restore_brokers(self.consumer.client());
            let changes = context.take_changes();
            if let Some(error) = changes.fatal {
                return Err(SourceError::Rejoin(error));
            }
            if context.connections.is_stuck() {
                return Err(SourceError::Rejoin("a connection of the client is stuck".into()));
            }
            any_waiting = changes.any_waiting;
            for partition in changes.revoked {
                self.buffers.remove(partition);
            }
            match polled {
                Some(Ok(message)) => {
                    let partition = PartitionId(message.partition().max(0) as u32);
                    let record = Record {
                        offset: Offset(message.offset().max(0) as u64),
                        key: message.key().unwrap_or_default(),
                        value: message.payload().unwrap_or_default(),
                    };
                    let full = self.buffers.push(partition, record);
                    buffered = true;
                    drop(message);
                    if full {
                        self.flush(partition);
                    }
                    since_check += 1;
                    if since_check == BUFFERING_CHECK_RECORDS {
                        since_check = 0;
                        if last_flush.elapsed() > MAX_BUFFERING {
                            self.flush_all();
                            last_flush = Instant::now();
                        }
                    }
                }
                Some(Err(error)) => self.handle_error(&error)?,
                None => {
                    self.flush_all();
                    last_flush = Instant::now();
                    buffered = false;
                }
            }
            if last_commit.elapsed() > ADVISORY_COMMIT_INTERVAL {
                last_commit = Instant::now();
                let all = self.advised_all_at.elapsed() > FULL_ADVISORY_COMMIT_INTERVAL;
                self.commit_advisory_offsets(if all { Advice::All } else { Advice::Moved });
            }
        }
        Ok(())
    }

    /// Whether other members will take the partitions over. If that is unknown, nobody is waited for.
    fn group_has_others(&self, group: &str) -> bool {
        match self.consumer.fetch_group_list(Some(group), GROUP_TIMEOUT) {
            Ok(list) => list.groups().iter().any(|group| group.members().len() > 1),
            Err(error) => {
                tracing::debug!(%error, "failed to list the members of the group");
                false
            }
        }
    }

    /// Starts, restarts or stops reading the partitions that the handler names.
    fn apply_starts(&mut self) -> Result<(), SourceError> {
        let starts = self.handler.take_starts();
        if starts.is_empty() {
            return Ok(());
        }
        self.consumer
            .context()
            .apply_starts(&self.consumer, &starts)
            .map_err(|error| SourceError::Rejoin(format!("failed to start partitions: {error}")))?;
        for (partition, start) in starts {
            match start {
                StartPosition::At(_) => self.buffers.start(partition),
                StartPosition::Paused => self.buffers.remove(partition),
            }
        }
        Ok(())
    }

    fn flush_all(&mut self) {
        for partition in self.buffers.filled() {
            self.flush(partition);
        }
    }

    /// Delivers a partition's buffered records, oldest first. Pauses the partition if its owner's queue is full.
    fn flush(&mut self, partition: PartitionId) {
        if let Some(batch) = self.buffers.take_undelivered(partition) {
            match self.handler.deliver(batch, Duration::ZERO) {
                Ok(()) => self.set_paused(partition, false),
                Err(batch) => return self.buffers.keep_undelivered(partition, batch),
            }
        }
        if let Some(batch) = self.buffers.take_batch(partition)
            && let Err(batch) = self.handler.deliver(batch, DELIVERY_TIMEOUT)
        {
            self.buffers.keep_undelivered(partition, batch);
            self.set_paused(partition, true);
        }
    }

    fn set_paused(&self, partition: PartitionId, paused: bool) {
        let mut list = TopicPartitionList::new();
        list.add_partition(&self.topic, partition.0 as i32);
        let outcome = if paused { self.consumer.pause(&list) } else { self.consumer.resume(&list) };
        if let Err(error) = outcome {
            tracing::warn!(%partition, paused, %error, "failed to pause or resume a partition");
        }
    }

    /// Commits the owners' positions to the group, for lag tools and autoscalers only.
    fn commit_advisory_offsets(&mut self, advice: Advice) {
        if advice == Advice::All {
            self.advised.clear();
            self.advised_all_at = Instant::now();
        }
        let mut list = TopicPartitionList::new();
        for (partition, position) in self.handler.committed() {
            if self.advised.insert(partition, position) == Some(position) {
                continue;
            }
            let offset = KafkaOffset::Offset(position.0 as i64);
            if let Err(error) = list.add_partition_offset(&self.topic, partition.0 as i32, offset) {
                tracing::debug!(%partition, %error, "skipped an advisory offset");
            }
        }
        if list.count() > 0
            && let Err(error) = self.consumer.commit(&list, rdkafka::consumer::CommitMode::Async)
        {
            tracing::debug!(%error, "failed to commit advisory offsets");
        }
    }

    /// Returns an error if the group must be rejoined. librdkafka retries all other errors by itself, except that it
    /// stops to read a partition whose next record is gone.
    fn handle_error(&self, error: &KafkaError) -> Result<(), SourceError> {
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {
                self.consumer.context().note_read_error(error.to_string());
                Ok(())
            }
            // The topic is gone, or is not to be read by this client.
            Some(
                RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::UnknownTopic
                | RDKafkaErrorCode::UnknownPartition
                | RDKafkaErrorCode::TopicAuthorizationFailed
                | RDKafkaErrorCode::GroupAuthorizationFailed,
            ) => Err(SourceError::Rejoin(error.to_string())),
            _ if matches!(error, KafkaError::MessageConsumptionFatal(_)) => {
                Err(SourceError::Rejoin(error.to_string()))
            }
            _ => {
                tracing::debug!(%error, "kafka consumer error");
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests;
