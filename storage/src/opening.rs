//! Places that cannot be opened, and what to do about it.

use std::time::Duration;

use crate::log::kafka::TopicError;
use crate::secret::SecretError;
use crate::store::StoreError;

/// Between two attempts to open what is away.
const AGAIN: Duration = Duration::from_secs(1);

/// Why a place could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It does not answer: try again.
    #[error("{place}: {reason}")]
    Away {
        /// Which place.
        place: &'static str,
        /// What it said.
        reason: String,
    },
    /// It is not what it should be: nothing will help but an operator.
    #[error("{place}: {reason}")]
    Wrong {
        /// Which place.
        place: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The secret of persons' keys cannot be had.
    #[error(transparent)]
    Secret(#[from] SecretError),
}

impl OpenError {
    pub(crate) fn wrong(place: &'static str, reason: impl ToString) -> Self {
        Self::Wrong { place, reason: reason.to_string() }
    }

    pub(crate) fn log(error: TopicError) -> Self {
        let (place, reason) = ("the log", error.to_string());
        match error {
            TopicError::Unavailable { .. } => Self::Away { place, reason },
            TopicError::Partitions { .. } => Self::Wrong { place, reason },
        }
    }

    pub(crate) fn store(error: StoreError) -> Self {
        let (place, reason) = ("the store", error.to_string());
        match error {
            StoreError::Unavailable(_) => Self::Away { place, reason },
            StoreError::Corrupt(_) => Self::Wrong { place, reason },
        }
    }
}

/// Opens a place, again and again while it is away.
///
/// # Errors
/// When it is not what it should be.
pub async fn until_there<T>(
    mut open: impl AsyncFnMut() -> Result<T, OpenError>,
) -> Result<T, OpenError> {
    loop {
        match open().await {
            Err(error @ OpenError::Away { .. }) => {
                tracing::warn!(%error, "not there yet; trying again");
                tokio::time::sleep(AGAIN).await;
            }
            ended => return ended,
        }
    }
}
