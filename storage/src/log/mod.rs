//! The log: the truth that everything else is derived from.

pub mod archive;
mod background;
mod batch;
mod gapless;
pub mod kafka;
pub mod letters;
pub mod sqlite;

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use schemas::{LogRef, PartitionCount, PartitionId, PersonKey, Position, Receipt};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::opening::OpenError;

pub use batch::{Record, RecordBatch};
pub use letters::{DeadLetter, DeadLetters, Decision, Entry, LetterBook, PutAway};

/// One record on its way into the log: into the partition that its key belongs to, in whichever log takes it.
#[derive(Debug, Clone)]
pub struct NewRecord {
    /// The record's key.
    pub key: PersonKey,
    /// The record's value.
    pub value: Vec<u8>,
}

/// Why a record has no offset.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// It is not in the log and will not be: the caller may send it again.
    #[error("the log cannot take records now: {0}")]
    Unavailable(String),
    /// It may be in the log, or get there yet: send the same submission id again.
    #[error("the log did not say whether it has the record: {0}")]
    Unknown(String),
    /// It is not in the log, which takes no more: it goes on in another one, or will.
    #[error("the log takes no more records: it is being moved to another topic")]
    Sealed,
}

/// Appends records.
#[async_trait]
pub trait LogWriter: Send + Sync + 'static {
    /// Appends records and answers for each of them, in order, where it stands once it is durable, or that it will not
    /// be. It answers within a bound of about a second, and holds no record longer.
    async fn append(&self, records: Vec<NewRecord>) -> Vec<Result<Receipt, AppendError>>;

    /// Whether the log takes records now, as far as is known without asking it.
    fn available(&self) -> Result<(), AppendError>;
}

/// Which log it is: a topic that was deleted and made again under the same name is another log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogIdentity {
    /// The Kafka cluster's id, or the embedded log's own.
    pub cluster_id: String,
    /// The topic's id; empty where the client cannot tell.
    pub topic_id: String,
}

/// What a partition holds now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogBounds {
    /// The first record still there.
    pub low: Position,
    /// Where the next record will be.
    pub high: Position,
}

/// Where an owner wants its records from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// From this position on.
    At(Position),
    /// Not at all: the partition is halted, or could not be claimed.
    Nowhere,
}

/// What a [`LogSource`] tells its owner. The calls come from the source's one thread, in order; none may panic.
pub trait PartitionHandler: Send + Sync + 'static {
    /// The partitions are ours now. Blocks until their owner has claimed them and says where to start.
    fn assigned(&self, partitions: &[(PartitionId, LogBounds)]) -> Vec<(PartitionId, Start)>;

    /// The partitions are no longer ours. Blocks, within a bound, until their owner has let go. `lost` says that
    /// somebody else may have them already, so that a last commit is in vain.
    fn revoked(&self, partitions: &[PartitionId], lost: bool);

    /// Records of one partition, in order and without a gap since the last. Waits at most `patience` for room, then
    /// gives the batch back.
    ///
    /// # Errors
    /// The batch, when there is no room: the source stops fetching that partition and offers the batch again.
    fn deliver(&self, batch: RecordBatch, patience: Duration) -> Result<(), RecordBatch>;

    /// Where the partition's next record will be, as last heard: for lag.
    fn high_watermark(&self, partition: PartitionId, high: Position);

    /// The partition cannot be read any further, and joining again will not help.
    fn halt(&self, partition: PartitionId, reason: String);

    /// The positions that are committed now, for the group's lag tools; never read back as truth.
    fn committed(&self) -> Vec<(PartitionId, Position)>;

    /// Whether the owner wants to leave the group and join again (it was fenced, or could not claim).
    fn wants_to_rejoin(&self) -> bool;
}

/// Why a source ended before it was told to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// Join again after a while.
    #[error("the log's group must be joined again: {0}")]
    Rejoin(String),
}

/// Reads the log as a member of a group, which shares the partitions among its members.
pub trait LogSource: Send + 'static {
    /// In which cluster the logs are.
    fn identity(&self) -> LogIdentity;

    /// Joins for a log, delivers until told to stop, and leaves. Blocks: it wants a thread of its own. Can be called again
    /// after [`SourceError::Rejoin`], also for another log.
    ///
    /// # Errors
    /// When it ends before it was told to.
    fn run(
        &mut self,
        log: &LogRef,
        handler: &dyn PartitionHandler,
        stop: &CancellationToken,
    ) -> Result<(), SourceError>;
}

/// Opens readers of a deployment's logs. Creates nothing.
#[async_trait]
pub trait LogReaders: Send + Sync + 'static {
    /// A log, with its archive before it, if there is one.
    ///
    /// # Errors
    /// When it does not answer, is not there, or has another partition count.
    async fn open(&self, log: &LogRef) -> Result<Arc<dyn LogReader>, OpenError>;

    /// A log itself, without its archive.
    ///
    /// # Errors
    /// As above.
    async fn open_alone(&self, log: &LogRef) -> Result<Arc<dyn LogReader>, OpenError>;
}

/// Why records could not be read back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The log does not answer: try again later.
    #[error("the log cannot be read now: {0}")]
    Unavailable(String),
    /// The log does not hold a record that it should: its beginning was deleted, it was created anew, or it is damaged.
    #[error("the log has no record at {0}")]
    Missing(Position),
    /// The log's archive is not what was written.
    #[error("the archive cannot be read: {0}")]
    Damaged(String),
}

impl ReadError {
    fn unavailable(reason: impl ToString) -> Self {
        Self::Unavailable(reason.to_string())
    }
}

/// Records of one partition as they are read back, a batch at a time and few batches ahead. After an error comes
/// nothing; dropping it ends the reading.
pub type Stretch = mpsc::Receiver<Result<RecordBatch, ReadError>>;

/// Reads the log beside its group: any stretch of any partition, as often as one likes, while owners fold it.
#[async_trait]
pub trait LogReader: Send + Sync + 'static {
    /// How many partitions the log has.
    fn partitions(&self) -> PartitionCount;

    /// Which log it is.
    fn identity(&self) -> LogIdentity;

    /// What a partition holds now.
    async fn bounds(&self, partition: PartitionId) -> Result<LogBounds, ReadError>;

    /// The records from a position on, in order and without a gap, up to an end that may be moved on. What it is moved to
    /// has to be in the log already. Once nobody can move it any more the stretch is over there.
    fn follow(
        &self,
        partition: PartitionId,
        start: Position,
        end: watch::Receiver<Position>,
    ) -> Stretch;

    /// The records of a stretch, in order and without a gap. It has to be in the log already.
    fn read(&self, partition: PartitionId, stretch: Range<Position>) -> Stretch {
        let (_, end) = watch::channel(stretch.end);
        self.follow(partition, stretch.start, end)
    }
}
