//! The log: one Kafka topic of submissions, from which all other data is derived.
//!
//! Owns appending, consuming and reading records, and the dead letters. Does not know what a record means.

pub mod archive;
mod batch;
mod contiguous_batcher;
pub mod dead_letters;
pub mod kafka;
pub(crate) mod reader_thread;
pub mod sqlite;
mod tail;

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use schemas::{LogRef, PartitionCount, PartitionId, PersonKey, Position, RecordAddress};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::open_error::OpenError;

pub use crate::log_identity::LogIdentity;
pub use batch::{Record, RecordBatch};
pub use dead_letters::{
    DeadLetter, DeadLetterJournal, DeadLetterMeta, DeadLetterWriter, Decision, JournalEntry,
};
pub use tail::LogTail;
pub(crate) use tail::PolledTail;

/// A record to append. Its key determines the partition.
#[derive(Debug, Clone)]
pub struct NewRecord {
    /// The record's key.
    pub key: PersonKey,
    /// The record's value.
    pub value: Vec<u8>,
}

/// Why an append returned no new offset.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The record is not in the log and never will be: the caller may send it again.
    #[error("the log is unavailable: {0}")]
    Unavailable(String),
    /// The record may be in the log, now or later: the caller must send the same submission id again.
    #[error("the outcome of the append is unknown: {0}")]
    Unknown(String),
    /// The record is not in the log, whose brokers reject it for its size: the log is sealed, and appends continue in its
    /// successor; or the topic's limit is below a batch.
    #[error(
        "the log rejects records for their size: it is sealed while it is moved to another topic, or its \
         max.message.bytes is too low"
    )]
    Sealed,
    /// The log has reached its configured size: the record is not in it.
    #[error(
        "the log has reached its configured size of {max_bytes} bytes (`sqlite.max_log_bytes`)"
    )]
    Full {
        /// The configured size.
        max_bytes: u64,
    },
    /// The budget is closed in the log: the record is not in it.
    #[error("the budget is closed in the log")]
    Closed,
    /// The log has this submission already, at this address.
    #[error("the submission is in the log already, at {0}")]
    Repeated(RecordAddress),
    /// The log has another submission with this id: the record is not in the log and never will be.
    #[error("the log has a submission with this id and different content")]
    IdReused,
}

/// Appends records.
#[async_trait]
pub trait LogWriter: Send + Sync + 'static {
    /// Appends records and returns one result for each, in order: its address once it is durable, or an error.
    /// Returns within a bound of about a second (longer only while the log is sealed), and drops the records then.
    async fn append(&self, records: Vec<NewRecord>) -> Vec<Result<RecordAddress, AppendError>>;

    /// Appends submissions, each at most once for its submission id if the log knows the ids that it has. A log that
    /// does not know them appends them all, as [`append`](Self::append) does: then the fold counts an id once.
    async fn append_once_per_id(
        &self,
        records: Vec<NewRecord>,
    ) -> Vec<Result<RecordAddress, AppendError>> {
        self.append(records).await
    }

    /// Returns whether the log accepts records, from what is known without a request.
    fn available(&self) -> Result<(), AppendError>;

    /// Returns the partitions whose records fail at once, while others are appended.
    fn refused_partitions(&self) -> Vec<PartitionId> {
        Vec::new()
    }
}

/// The positions that bound a partition's records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogBounds {
    /// The first record that is still in the log.
    pub low: Position,
    /// The position of the next record to be appended (high watermark).
    pub high: Position,
}

/// Reads the bounds of a log's partitions, each on its own: a partition that nobody serves does not keep another one's
/// from being read.
#[async_trait]
pub trait BoundsReader: Send + Sync + 'static {
    /// Reads the bounds of a partition's records, or fails within seconds.
    async fn bounds(&self, partition: PartitionId) -> Result<LogBounds, ReadError>;
}

/// Where to read an assigned partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartPosition {
    /// Read from this position, whatever was read before.
    At(Position),
    /// Do not read: the partition has no owner here.
    Paused,
}

/// Why a member no longer has partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Revocation {
    /// The group moves them to other members. Their owners may fold on until those have claimed them.
    Moved,
    /// Nobody is about to take them over: they are committed and released.
    Released,
    /// Another member may own them already, so that a last commit would fail.
    Lost,
}

/// Receives a [`LogSource`]'s assignments and records. The source calls it from one thread, in order; no method may
/// panic.
pub trait PartitionHandler: Send + Sync + 'static {
    /// Reports newly assigned partitions. They are not read until [`take_starts`](Self::take_starts) returns them, each
    /// at its own time. Does not block.
    fn assigned(&self, partitions: &[PartitionId], bounds: &Arc<dyn BoundsReader>);

    /// Returns the partitions of which the start position has changed since the last call, in no order. Called before
    /// each record; cheap when there is none.
    fn take_starts(&self) -> Vec<(PartitionId, StartPosition)>;

    /// Reports revoked partitions, of which the source delivers no record any more. Blocks, within a bound, until they
    /// are released; not for partitions that are [`Revocation::Moved`].
    fn revoked(&self, partitions: &[PartitionId], revocation: Revocation);

    /// Delivers records of one partition, in order and contiguous with the previous batch. Waits at most `timeout`
    /// for queue capacity.
    ///
    /// # Errors
    /// Returns the batch when the queue is full: the source pauses the partition and delivers the batch again later.
    fn deliver(&self, batch: RecordBatch, timeout: Duration) -> Result<(), RecordBatch>;

    /// Reports the partition's last known high watermark, for lag.
    fn high_watermark(&self, partition: PartitionId, high: Position);

    /// Reports that a partition cannot be read on from where it was read. It is not read until
    /// [`take_starts`](Self::take_starts) returns it again.
    fn read_failed(&self, partition: PartitionId, reason: &str);

    /// Halts a partition that cannot be read further, wherever it is started.
    fn halt(&self, partition: PartitionId, reason: String);

    /// Returns the committed positions, for the group's lag tools. They are never read back as truth.
    fn committed(&self) -> Vec<(PartitionId, Position)>;

    /// Returns whether the source should leave and rejoin the group, for another log. Called before each record; may
    /// first claim every partition anew, within the bounds of [`revoked`](Self::revoked).
    fn wants_to_rejoin(&self) -> bool;
}

/// Why a source ended before it was stopped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// The group must be rejoined after a delay.
    #[error("the consumer group must be rejoined: {0}")]
    Rejoin(String),
}

/// Consumes the log as a member of a group whose members share the partitions.
pub trait LogSource: Send + 'static {
    /// Returns the identity of the cluster that holds the logs.
    fn identity(&self) -> LogIdentity;

    /// Joins the group for a log, delivers records until `stop`, and leaves. Blocks: it needs its own thread. Can be
    /// called again after [`SourceError::Rejoin`], also for another log.
    ///
    /// # Errors
    /// When it ends before `stop`.
    fn run(
        &mut self,
        log: &LogRef,
        handler: &dyn PartitionHandler,
        stop: &CancellationToken,
    ) -> Result<(), SourceError>;
}

/// Opens readers of a deployment's logs. Creates nothing.
#[async_trait]
pub trait LogReaderOpener: Send + Sync + 'static {
    /// Opens a log, with its archive if there is one.
    ///
    /// # Errors
    /// When the log is unavailable, does not exist, or has another partition count.
    async fn open(&self, log: &LogRef) -> Result<Arc<dyn LogReader>, OpenError>;

    /// Opens a log without its archive.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    async fn open_without_archive(&self, log: &LogRef) -> Result<Arc<dyn LogReader>, OpenError>;

    /// Opens a log for following the ends of its partitions.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    async fn open_tail(&self, log: &LogRef) -> Result<Arc<dyn LogTail>, OpenError> {
        Ok(Arc::new(PolledTail(self.open_without_archive(log).await?)))
    }
}

/// Why records could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The log is unavailable: try again later.
    #[error("the log cannot be read now: {0}")]
    Unavailable(String),
    /// The log lacks a record that it should have: it was truncated, recreated or damaged.
    #[error("the log has no record at {0}")]
    Missing(Position),
    /// The log's archive is damaged, or belongs to another log.
    #[error("the archive cannot be read: {0}")]
    Damaged(String),
}

impl ReadError {
    pub(crate) fn unavailable(reason: impl ToString) -> Self {
        Self::Unavailable(reason.to_string())
    }
}

/// Batches of one partition's records, read a few batches ahead. An error is the last item; dropping the stream ends
/// the reading.
pub type RecordStream = mpsc::Receiver<Result<RecordBatch, ReadError>>;

/// Reads any range of any partition without joining the group, while owners consume the log.
#[async_trait]
pub trait LogReader: Send + Sync + 'static {
    /// Returns the log's partition count.
    fn partitions(&self) -> PartitionCount;

    /// Returns the log's identity.
    fn identity(&self) -> LogIdentity;

    /// Returns the bounds of a partition's records.
    async fn bounds(&self, partition: PartitionId) -> Result<LogBounds, ReadError>;

    /// Reads contiguous records from `start` up to `end`. The end may be advanced to any position that is in the log.
    /// The stream ends at `end` once its sender is dropped.
    fn follow(
        &self,
        partition: PartitionId,
        start: Position,
        end: watch::Receiver<Position>,
    ) -> RecordStream;

    /// Reads the contiguous records of a range that is in the log.
    fn read(&self, partition: PartitionId, range: Range<Position>) -> RecordStream {
        let (_, end) = watch::channel(range.end);
        self.follow(partition, range.start, end)
    }
}
