//! The same partition in the generation that answers: where it is, and whether it comes on.

use std::time::Duration;

use schemas::Position;
use storage::store::{StoreError, StoredPartition};
use tokio::time::Instant;

/// So long it may stand still, while the log goes on, before it is no longer waited for.
const STANDSTILL: Duration = Duration::from_secs(10);

/// How long the generation that answers has not come on, though the log has.
pub(super) struct Standstill {
    at: Option<Position>,
    since: Instant,
}

impl Standstill {
    pub fn begin() -> Self {
        Self { at: None, since: Instant::now() }
    }

    /// Whether it has lasted.
    pub fn lasts(&mut self, position: Option<Position>, high: Position) -> bool {
        if position == Some(high) || position != self.at {
            *self = Self { at: position, since: Instant::now() };
        }
        self.since.elapsed() > STANDSTILL
    }
}

/// The same partition in the generation that answers.
pub(super) enum Answering {
    /// It was never claimed, or it is gone.
    Nothing,
    /// It holds what cannot be.
    Damaged(String),
    At(Box<StoredPartition>),
}

impl Answering {
    pub fn of(read: Result<Option<StoredPartition>, StoreError>) -> Result<Self, StoreError> {
        match read {
            Ok(None) => Ok(Self::Nothing),
            Ok(Some(stored)) => Ok(Self::At(Box::new(stored))),
            Err(StoreError::Corrupt(reason)) => Ok(Self::Damaged(reason)),
            Err(away @ StoreError::Unavailable(_)) => Err(away),
        }
    }

    pub fn position(&self) -> Option<Position> {
        match self {
            Self::At(stored) => Some(stored.checkpoint.position),
            Self::Nothing | Self::Damaged(_) => None,
        }
    }
}
