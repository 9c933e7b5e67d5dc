//! Errors of a repartition.

use std::time::Duration;

use schemas::Generation;
use storage::log::ReadError;
use storage::log::kafka::TopicMigrationError;
use storage::open_error::OpenError;
use storage::retry::Transient;
use storage::store::StoreError;

use super::copy::CopyError;
use crate::rebuild::RebuildError;
use crate::registry::RegistryUpdateError;

/// Why a repartition failed; the log keeps its partition count.
#[derive(Debug, thiserror::Error)]
pub enum RepartitionError {
    /// The log lost its first records, or its end cannot be read.
    #[error(transparent)]
    Log(#[from] RebuildError),
    /// A transition of the registry failed.
    #[error(transparent)]
    Change(#[from] RegistryUpdateError),
    /// The store is unavailable or holds damaged data.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A Kafka admin request failed or timed out.
    #[error(transparent)]
    Kafka(#[from] TopicMigrationError),
    /// A log cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The copy failed.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// Another process has sealed the topic.
    #[error(
        "topic `{0}` is already sealed (max.message.bytes): `processor repartition --cancel` unseals it if no other \
         repartition is running"
    )]
    AlreadySealed(String),
    /// A topic with the new log's name exists.
    #[error("topic `{0}` of the new log already exists: delete it if it is not needed")]
    TopicExists(String),
    /// Another process cancelled the generation, or made another one active.
    #[error("generation {0} was cancelled by another process")]
    NoLongerBuilding(Generation),
    /// The repartition made no progress for too long.
    #[error("the repartition is stalled: {0}")]
    Stalled(String),
    /// The cutover took too long.
    #[error("the cutover took more than {} s, during which submissions waited", .0.as_secs())]
    CutoverTimeout(Duration),
    /// A process other than the copier appended to the new log, or after the seal to the old one.
    #[error("topic `{0}` has records that were not copied")]
    UnexpectedRecords(String),
    /// The generations differ; one difference per line.
    #[error("the totals of the new log differ from those of the old log:\n{}", .0.join("\n"))]
    Different(Vec<String>),
    /// The command was asked to stop.
    #[error("interrupted")]
    Interrupted,
}

impl From<ReadError> for RepartitionError {
    fn from(error: ReadError) -> Self {
        Self::Log(error.into())
    }
}

impl Transient for RepartitionError {
    fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Store(StoreError::Unavailable(_))
                | Self::Log(RebuildError::Read(ReadError::Unavailable(_)))
        )
    }
}
