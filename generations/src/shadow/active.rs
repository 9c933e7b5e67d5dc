//! The active generation's state of a partition: its position, and whether it makes progress.

use std::time::Duration;

use schemas::Position;
use storage::store::{StoreError, StoredPartition};
use tokio::time::Instant;

/// Time without progress after which the active generation is no longer waited for.
const STALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Detects that the active generation makes no progress although the log does.
pub(super) struct StallDetector {
    position: Option<Position>,
    since: Instant,
}

impl StallDetector {
    pub fn new() -> Self {
        Self { position: None, since: Instant::now() }
    }

    /// Records a position of the active generation and returns whether it is stalled.
    pub fn observe(&mut self, position: Option<Position>, log_end: Position) -> bool {
        if position == Some(log_end) || position != self.position {
            *self = Self { position, since: Instant::now() };
        }
        self.since.elapsed() > STALL_TIMEOUT
    }
}

/// The stored state of the same partition in the active generation.
pub(super) enum ActivePartition {
    /// The partition was never claimed, or its row is gone.
    Missing,
    /// The stored state is damaged, with a description.
    Damaged(String),
    Stored(Box<StoredPartition>),
}

impl ActivePartition {
    /// Converts a read of the store.
    ///
    /// # Errors
    /// When the store is unavailable.
    pub fn from_read(
        read: Result<Option<StoredPartition>, StoreError>,
    ) -> Result<Self, StoreError> {
        match read {
            Ok(None) => Ok(Self::Missing),
            Ok(Some(stored)) => Ok(Self::Stored(Box::new(stored))),
            Err(StoreError::Corrupt(reason)) => Ok(Self::Damaged(reason)),
            Err(error @ StoreError::Unavailable(_)) => Err(error),
        }
    }

    pub fn position(&self) -> Option<Position> {
        match self {
            Self::Stored(stored) => Some(stored.checkpoint.position),
            Self::Missing | Self::Damaged(_) => None,
        }
    }
}
