//! The signals of accepted submissions, kept for seven days: appends and reads them.
//!
//! Signals are best effort: none is needed for a correct total, and a lost one is only counted. Does not know what they
//! mean.

mod kafka;
mod sqlite;

use std::ops::Range;

use async_trait::async_trait;
use runtime::clock::now_ms;
use schemas::{BudgetId, SIGNAL_RETENTION_MS, Signal};
use tokio::sync::mpsc;

use crate::log::{AppendError, ReadError};

pub use kafka::{KafkaSignalReader, KafkaSignalWriter};
pub use sqlite::{SqliteSignalReader, SqliteSignalWriter};

/// Maximum number of signals in a batch that a reader returns.
pub const MAX_BATCH_SIGNALS: usize = 1_000;
/// Batches that a reader reads ahead.
const READ_AHEAD_BATCHES: usize = 4;

/// Appends signals.
#[async_trait]
pub trait SignalWriter: Send + Sync + 'static {
    /// Appends signals.
    ///
    /// # Errors
    /// When some of them may not have been appended.
    async fn append(&self, signals: &[Signal]) -> Result<(), AppendError>;

    /// Deletes a bounded number of signals that are older than seven days; returns whether there may be more.
    ///
    /// # Errors
    /// When the signals cannot be deleted now.
    async fn expire(&self, now_ms: u64) -> Result<bool, AppendError>;
}

/// What became of the signals of a budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignalErasure {
    /// They are in no file any more.
    Erased,
    /// Kafka cannot delete the records of one budget: it keeps them until they are seven days old.
    AwaitsRetention,
}

/// Erases the signals of forgotten budgets.
#[async_trait]
pub trait SignalEraser: Send + Sync + 'static {
    /// Erases the signals of a budget, and those that this release cannot read.
    ///
    /// # Errors
    /// When the signals cannot be erased now.
    async fn erase(&self, budget: &BudgetId) -> Result<SignalErasure, AppendError>;
}

/// Which signals to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignalQuery {
    /// The only budget whose signals are wanted; `None`: all budgets.
    pub budget: Option<BudgetId>,
    /// The times of acceptance, in milliseconds since 1970. Signals older than seven days are never returned.
    pub accepted_ms: Range<u64>,
}

impl SignalQuery {
    /// Returns the query without what is older than seven days.
    fn within_retention(mut self) -> Self {
        let oldest = now_ms().saturating_sub(SIGNAL_RETENTION_MS);
        self.accepted_ms.start = self.accepted_ms.start.max(oldest);
        self
    }

    fn wants(&self, signal: &Signal) -> bool {
        self.accepted_ms.contains(&signal.accepted_at_ms)
            && self.budget.as_ref().is_none_or(|budget| *budget == signal.budget)
    }
}

/// Some of the signals of a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignalBatch {
    /// The signals. Nearly in the order of acceptance: several processes append them.
    pub signals: Vec<Signal>,
    /// How many records have been read, those that are not wanted or not readable included.
    pub done: u64,
    /// How many records there are to read.
    pub total: u64,
}

/// Batches of signals. An error is the last item; dropping the stream ends the reading.
pub type SignalStream = mpsc::Receiver<Result<SignalBatch, ReadError>>;

/// Reads signals. Creates nothing.
pub trait SignalReader: Send + Sync + 'static {
    /// Reads the signals of a query that have been appended before the call. Must be called in a tokio runtime.
    fn read(&self, query: SignalQuery) -> SignalStream;
}
