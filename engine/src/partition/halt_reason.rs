//! Why a partition halts: only an operator can help.

use schemas::{Offset, Position};
use storage::store::StoreError;

use super::DeadLetterLimitExceeded;

/// Why a partition cannot be folded further. The text tells an operator what is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HaltReason {
    /// The checkpoint belongs to another log.
    #[error(
        "the checkpoint is of cluster `{expected}`, topic `{expected_topic}`, but this is `{found}`, `{found_topic}`"
    )]
    OtherLog {
        /// The checkpoint's cluster id.
        expected: String,
        /// The checkpoint's topic id.
        expected_topic: String,
        /// The cluster id of the log that is read now.
        found: String,
        /// The topic id of the log that is read now.
        found_topic: String,
    },
    /// The log does not cover the offsets from the resume position to the totals' position.
    #[error(
        "the log holds {low}..{high}, but folding resumes at {resume} and the totals are at {position}: \
             it was truncated or recreated. Restore it, or rebuild from its archive: rebuild --from-archive"
    )]
    OutOfRange {
        /// The first position in the log.
        low: Position,
        /// The log's high watermark.
        high: Position,
        /// The position at which reading would resume.
        resume: Position,
        /// The totals' position.
        position: Position,
    },
    /// The log no longer has records that the totals do not count: they were never folded, or the store lost its
    /// checkpoint.
    #[error(
        "the log begins at {low}, but the totals are at {position}: records {position}..{low} are in neither. Restore \
             the topic or the store from a backup, or rebuild from the log's archive: rebuild --from-archive"
    )]
    RecordsLost {
        /// The first position in the log.
        low: Position,
        /// The totals' position.
        position: Position,
    },
    /// The record before the position differs from the folded one.
    #[error("the record at offset {0} is not the one that was folded: the topic was recreated")]
    OtherRecord(Offset),
    /// The log skips records, also when it is read again.
    #[error("the log has no records {expected}..{found}: they were deleted or compacted")]
    LogGap {
        /// The offset of the first missing record.
        expected: Position,
        /// The offset of the next record in the log.
        found: Offset,
    },
    /// The person rows cannot restore people, and the log no longer has the records to replay people from.
    #[error(
        "{fault}, and the log begins at {log_start}: people cannot be replayed from it. Restore the store or the log, or \
             rebuild from its archive: rebuild --from-archive"
    )]
    PeopleLost {
        /// What is wrong with the person rows.
        fault: String,
        /// The first position in the log.
        log_start: Position,
    },
    /// Too many records are rejected.
    #[error(
        "{exceeded}, the last at offset {offset}: {reason}. Stop the program that writes them, or deploy a release that \
             accepts them; or dead-letter them: raise processor.dead_letter_run or processor.dead_letter_percent"
    )]
    TooManyDeadLetters {
        /// The exceeded threshold.
        exceeded: DeadLetterLimitExceeded,
        /// The offset of the last rejected record.
        offset: Offset,
        /// Why that record was rejected.
        reason: String,
    },
    /// The log's source cannot continue reading.
    #[error("{0}")]
    Log(String),
    /// The totals contradict themselves, or people replayed from the log.
    #[error("an invariant does not hold: {0}")]
    Invariant(String),
    /// The store holds a state that this software never writes.
    #[error("{0}")]
    Store(String),
    /// A bug.
    #[error("the owner failed: {0}")]
    Failed(String),
}

impl HaltReason {
    /// Converts the error of a store call that was retried while the store was unavailable.
    pub(super) fn from_store(error: StoreError) -> Self {
        match error {
            StoreError::Corrupt(reason) | StoreError::Unavailable(reason) => Self::Store(reason),
        }
    }
}
