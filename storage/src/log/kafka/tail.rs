//! Follows the ends of a topic's partitions with one client in one thread. The client exists while any partition is
//! followed. A partition whose receiver is behind is paused, and the others are read on.

use std::collections::BTreeMap;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::{Message, Offset as KafkaOffset, TopicPartitionList};
use schemas::{LogRef, Offset, PartitionId, Position};
use tokio::sync::mpsc::error::TrySendError;

use super::KafkaConfig;
use super::consumer::{TailContext, create_tail_consumer, is_out_of_range};
use super::keep_awake::keep_awake;
use super::topic_error::TopicError;
use super::topics::check_topic;
use crate::log::{LogTail, ReadError, Record, RecordBatch, RecordStream};

/// Batches that may wait for a receiver.
const STREAM_CAPACITY: usize = 4;
/// Longest time in which a request to follow a partition is not seen.
const IDLE_POLL_TIMEOUT: Duration = Duration::from_millis(50);
/// Poll timeout while a receiver is behind.
const PAUSED_POLL_TIMEOUT: Duration = Duration::from_millis(5);
/// Longest time for which records are gathered into a batch while others arrive.
const MAX_BUFFERING: Duration = Duration::from_millis(20);

/// Follows the ends of a topic's partitions. The thread ends once this is dropped.
pub struct KafkaTail {
    requests: Sender<FollowedPartition>,
}

impl KafkaTail {
    /// Opens a log. Creates nothing.
    ///
    /// # Errors
    /// When Kafka is unavailable, or the topic does not exist or has another partition count than the log.
    pub async fn open(config: &KafkaConfig, log: &LogRef) -> Result<Self, TopicError> {
        check_topic(config, log).await?;
        Self::start(config, log).map_err(|error| TopicError::unavailable(config, error))
    }

    /// Starts the thread, without a request to Kafka.
    fn start(config: &KafkaConfig, log: &LogRef) -> std::io::Result<Self> {
        let (requests, waiting) = mpsc::channel();
        let (config, log) = (config.clone(), log.clone());
        let thread = std::thread::Builder::new().name("log-tail".into());
        thread.spawn(move || serve(&config, &log, &waiting))?;
        Ok(Self { requests })
    }
}

impl LogTail for KafkaTail {
    fn follow(&self, partition: PartitionId, start: Position) -> RecordStream {
        let (stream, records) = tokio::sync::mpsc::channel(STREAM_CAPACITY);
        let batch = RecordBatch::new(partition);
        let followed = FollowedPartition {
            partition,
            next: start,
            batch,
            stream,
            is_paused: false,
            is_read: false,
        };
        // Fails only if the thread has panicked: then the stream ends.
        let _ = self.requests.send(followed);
        records
    }
}

fn serve(config: &KafkaConfig, log: &LogRef, requests: &Receiver<FollowedPartition>) {
    while let Ok(first) = requests.recv() {
        match create_tail_consumer(config, log) {
            Ok(consumer) => {
                let (topic, followed) = (log.topic.as_str(), BTreeMap::new());
                let mut follower = Follower { consumer: &consumer, topic, followed };
                keep_awake(&consumer, || follower.run(first, requests));
            }
            Err(error) => first.fail(ReadError::unavailable(error)),
        }
    }
}

/// A partition that is followed, with the records that were read and not sent.
struct FollowedPartition {
    partition: PartitionId,
    next: Position,
    batch: RecordBatch,
    stream: tokio::sync::mpsc::Sender<Result<RecordBatch, ReadError>>,
    is_paused: bool,
    /// Whether a record was read.
    is_read: bool,
}

impl FollowedPartition {
    /// Adds a record. Returns whether the batch is full.
    fn push(&mut self, record: Record<'_>) -> Result<bool, ReadError> {
        let position = Position(record.offset.0);
        if position > self.next {
            return Err(ReadError::Missing(self.next));
        }
        // What was read already may come again when the partition is resumed.
        if position == self.next {
            self.next = record.offset.next();
            self.is_read = true;
            self.batch.push(record);
        }
        Ok(self.batch.is_full())
    }

    /// Sends the batch. Returns whether the receiver is behind.
    fn flush(&mut self) -> bool {
        if self.batch.is_empty() {
            return false;
        }
        let permit = match self.stream.try_reserve() {
            Ok(permit) => permit,
            Err(error) => return matches!(error, TrySendError::Full(())),
        };
        let next = RecordBatch::new(self.partition);
        permit.send(Ok(std::mem::replace(&mut self.batch, next)));
        false
    }

    /// Ends the stream with an error.
    fn fail(self, error: ReadError) {
        // Without capacity, or a receiver, the stream ends without it.
        let _ = self.stream.try_send(Err(error));
    }
}

struct Follower<'t> {
    consumer: &'t BaseConsumer<TailContext>,
    topic: &'t str,
    followed: BTreeMap<PartitionId, FollowedPartition>,
}

impl Follower<'_> {
    /// Follows partitions until none is followed any more.
    fn run(&mut self, first: FollowedPartition, requests: &Receiver<FollowedPartition>) {
        self.add(first);
        let (mut is_buffered, mut flushed_at) = (false, Instant::now());
        while !self.followed.is_empty() {
            requests.try_iter().for_each(|next| self.add(next));
            self.remove_dropped();
            let is_any_paused = self.followed.values().any(|followed| followed.is_paused);
            let timeout = match (is_buffered, is_any_paused) {
                (true, _) => Duration::ZERO,
                (false, true) => PAUSED_POLL_TIMEOUT,
                (false, false) => IDLE_POLL_TIMEOUT,
            };
            let polled = self.consumer.poll(timeout);
            if self.consumer.context().connections.is_stuck() {
                return self.fail_all("a connection of the client is stuck");
            }
            is_buffered = match polled {
                Some(Ok(message)) => {
                    let partition = PartitionId(message.partition().max(0) as u32);
                    let record = Record {
                        offset: Offset(message.offset().max(0) as u64),
                        key: message.key().unwrap_or_default(),
                        value: message.payload().unwrap_or_default(),
                    };
                    let pushed = self.followed.get_mut(&partition).map(|one| one.push(record));
                    drop(message);
                    match pushed {
                        Some(Ok(true)) => self.flush(partition),
                        Some(Err(error)) => self.fail(partition, error),
                        Some(Ok(false)) | None => {}
                    }
                    true
                }
                Some(Err(error)) => {
                    self.read_failed(&error);
                    is_buffered
                }
                None => false,
            };
            if !is_buffered || flushed_at.elapsed() > MAX_BUFFERING {
                let all: Vec<_> = self.followed.keys().copied().collect();
                all.into_iter().for_each(|partition| self.flush(partition));
                flushed_at = Instant::now();
            }
        }
    }

    /// Starts to read a partition. A former stream of it ends.
    fn add(&mut self, followed: FollowedPartition) {
        let (partition, start) = (followed.partition, followed.next);
        if self.followed.remove(&partition).is_some() {
            self.unassign(partition);
        }
        let mut list = TopicPartitionList::new();
        let offset = KafkaOffset::Offset(start.0 as i64);
        let assigned = list
            .add_partition_offset(self.topic, partition.0 as i32, offset)
            .and_then(|()| self.consumer.incremental_assign(&list));
        match assigned {
            Ok(()) => {
                self.followed.insert(partition, followed);
            }
            Err(error) => followed.fail(ReadError::unavailable(error)),
        }
    }

    fn remove_dropped(&mut self) {
        let is_dropped = |followed: &&FollowedPartition| followed.stream.is_closed();
        let dropped: Vec<_> =
            self.followed.values().filter(is_dropped).map(|followed| followed.partition).collect();
        for partition in dropped {
            self.followed.remove(&partition);
            self.unassign(partition);
        }
    }

    fn unassign(&self, partition: PartitionId) {
        self.log_failure("unassign", self.consumer.incremental_unassign(&self.list(partition)));
    }

    fn fail(&mut self, partition: PartitionId, error: ReadError) {
        if let Some(followed) = self.followed.remove(&partition) {
            self.unassign(partition);
            followed.fail(error);
        }
    }

    /// Ends all streams, so that they are followed by another client.
    fn fail_all(&mut self, reason: &str) {
        for (_, followed) in std::mem::take(&mut self.followed) {
            followed.fail(ReadError::unavailable(reason));
        }
    }

    /// librdkafka retries by itself, except that it stops to read a partition whose next record is gone, and does not
    /// say of which one: of one that was added just now.
    fn read_failed(&mut self, error: &KafkaError) {
        if !is_out_of_range(error) {
            return;
        }
        let unread = self.followed.values().filter(|followed| !followed.is_read);
        let unread: Vec<_> = unread.map(|followed| (followed.partition, followed.next)).collect();
        for (partition, next) in unread {
            self.fail(partition, ReadError::Missing(next));
        }
    }

    /// Sends what was read of a partition, which is paused while its receiver is behind.
    fn flush(&mut self, partition: PartitionId) {
        let Some(followed) = self.followed.get_mut(&partition) else { return };
        let is_behind = followed.flush();
        if std::mem::replace(&mut followed.is_paused, is_behind) == is_behind {
            return;
        }
        let list = self.list(partition);
        match is_behind {
            true => self.log_failure("pause", self.consumer.pause(&list)),
            false => self.log_failure("resume", self.consumer.resume(&list)),
        }
    }

    fn list(&self, partition: PartitionId) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        list.add_partition(self.topic, partition.0 as i32);
        list
    }

    /// Logs a failed change. Records of a partition that stays assigned are dropped; a partition that is not assigned
    /// times out.
    fn log_failure(&self, change: &str, outcome: KafkaResult<()>) {
        if let Err(error) = outcome {
            tracing::warn!(topic = self.topic, change, %error, "failed to change the followed partitions");
        }
    }
}

#[cfg(test)]
mod tests;
