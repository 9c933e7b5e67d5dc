//! Why a dead letter must not be replayed.

use schemas::RecordAddress;

/// Why a dead letter must not be replayed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplayRefusal {
    /// There is no such dead letter.
    #[error("there is no such dead letter")]
    Unknown,
    /// It was dropped.
    #[error("it has been dropped")]
    Dropped,
    /// The log was recreated.
    #[error("another record is at this address now")]
    OtherRecord,
    /// Its log was replaced: a later submission of the person would be in the new log.
    #[error(
        "it is in a log that has been replaced since, and its person may have submitted to the new log"
    )]
    OtherLog,
    /// The fold would reject it again.
    #[error("the fold still rejects it: {0}")]
    StillRejected(String),
    /// A later submission of the person would be undone.
    #[error("the person has submitted since, at {0}: replaying this would undo it")]
    Superseded(RecordAddress),
    /// A newer release made a decision that this one does not know.
    #[error("a newer release made a decision about it that this release does not know")]
    Unrecognized,
    /// Another attempt is running or died half way.
    #[error("another replay of it has begun: if its process is dead, use resume")]
    Busy,
}
