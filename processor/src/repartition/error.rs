//! Why a repartition is not done.

use schemas::Generation;
use storage::log::ReadError;
use storage::log::kafka::MoveError;
use storage::opening::OpenError;
use storage::store::StoreError;

use super::copy::CopyError;
use super::run::SEALED_AT_MOST;
use crate::again::Away;
use crate::generations::ChangeError;
use crate::rebuild::RebuildError;

/// Why the log has as many partitions as before.
#[derive(Debug, thiserror::Error)]
pub enum RepartitionError {
    /// The log has no beginning, or does not tell where it ends.
    #[error(transparent)]
    Log(#[from] RebuildError),
    /// A step could not be taken.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// The store holds what cannot be, or does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Kafka does not do it, or does not say that it does.
    #[error(transparent)]
    Kafka(#[from] MoveError),
    /// A log cannot be read.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The copy was not made.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// It is sealed by somebody else.
    #[error(
        "topic `{0}` is sealed already (max.message.bytes): `processor repartition --cancel` opens it again if nobody is at it"
    )]
    SealedAlready(String),
    /// What stands there is not ours, for all that is known.
    #[error(
        "topic `{0}` is there already, and would be the new log's: delete it if nobody needs it"
    )]
    TopicIsThere(String),
    /// Somebody else has given it up, or another one answers.
    #[error("somebody else has given up generation {0}")]
    Gone(Generation),
    /// It does not come on.
    #[error("it does not come on: {0}")]
    Stuck(String),
    /// The last step takes too long.
    #[error("the last step took more than {} s, in which submissions waited", SEALED_AT_MOST.as_secs())]
    TooLong,
    /// Somebody has written to the new log, or to the old one after it was sealed.
    #[error("topic `{0}` has records that nobody copied")]
    Strangers(String),
    /// What was counted differs, a line each.
    #[error("what is counted in the new log is not what is counted in the old one:\n{}", .0.join("\n"))]
    Different(Vec<String>),
    /// It was told to stop.
    #[error("interrupted")]
    Interrupted,
}

impl From<ReadError> for RepartitionError {
    fn from(error: ReadError) -> Self {
        Self::Log(error.into())
    }
}

impl Away for RepartitionError {
    fn is_away(&self) -> bool {
        matches!(
            self,
            Self::Store(StoreError::Unavailable(_))
                | Self::Log(RebuildError::Read(ReadError::Unavailable(_)))
        )
    }
}
