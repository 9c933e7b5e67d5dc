//! Dead letters: records that the fold could not take, and what operators decide about them.
//!
//! Both are entries of one book that is only ever added to. What has become of a letter is a function of its entries:
//! see `state`. Its bytes are not in the book: see `record`.

mod record;
mod state;

use std::sync::Arc;

use async_trait::async_trait;
use schemas::{LogRef, Offset, PartitionId, Position, Receipt};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use uuid::Uuid;

use super::{AppendError, LogReader, ReadError};
use crate::opening::OpenError;

pub use record::{LetterRecord, LetterRecordError};
pub use state::{Letter, LetterState, Letters, Page};

/// A record that the fold could not take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Where it came from. It names the letter: one that is written twice is one letter.
    pub place: Receipt,
    /// Why it could not be taken.
    pub reason: String,
    /// The record's key as it was.
    pub key: Vec<u8>,
    /// The record's value as it was.
    pub value: Vec<u8>,
}

/// Keeps what the fold could not take.
#[async_trait]
pub trait DeadLetters: Send + Sync + 'static {
    /// Puts letters away durably.
    ///
    /// # Errors
    /// When some may not be there: all of them are to be sent again.
    async fn put(&self, letters: &[DeadLetter]) -> Result<(), AppendError>;
}

/// What an operator has decided about a letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// Its record is about to be appended once more.
    Replay {
        /// Who is about to. Of several, the first one does.
        attempt: Uuid,
        /// Where to.
        partition: PartitionId,
        /// At this position or later.
        from: Position,
    },
    /// Its record was appended once more.
    Replayed {
        /// Where it is now: in the letter's log.
        partition: PartitionId,
        /// Where it is now.
        offset: Offset,
    },
    /// There is nothing to do about it.
    Dropped,
}

/// A letter in the book, without its bytes: those are in the log, where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PutAway {
    /// Why it could not be taken.
    pub reason: String,
    /// Bytes of the record's key.
    pub key_bytes: u64,
    /// Bytes of the record's value.
    pub value_bytes: u64,
    /// When it was put away, in milliseconds since 1970.
    pub put_at_ms: u64,
}

/// One entry of the book, about the letter of the record that stands there. A letter may be entered more than once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// It was put away.
    Letter(Receipt, PutAway),
    /// Something was decided.
    Decided(Receipt, Decision),
    /// Nobody of ours wrote it.
    Foreign,
}

/// The book of dead letters, for operators.
#[async_trait]
pub trait LetterBook: Send + Sync + 'static {
    /// What is in the book by now: the decisions about a letter in the order in which they were made, after the letter.
    /// After an error comes nothing; dropping it ends the reading.
    fn entries(&self) -> mpsc::Receiver<Result<Entry, ReadError>>;

    /// Enters a decision, durably.
    ///
    /// # Errors
    /// When it may not be there: read, or enter it again.
    async fn decide(&self, letter: Receipt, decision: Decision) -> Result<(), AppendError>;
}

/// Where operators look at dead letters. Opened each time: they seldom look, and whoever only looks need not wait for the
/// log when it starts.
#[async_trait]
pub trait LetterPlaces: Send + Sync + 'static {
    /// Opens the book. Creates nothing.
    ///
    /// # Errors
    /// When it is not there.
    fn open_letter_book(&self) -> Result<Arc<dyn LetterBook>, OpenError>;

    /// Opens a log, which has the bytes of its letters. Creates nothing.
    ///
    /// # Errors
    /// When it does not answer, or is not there.
    async fn open_log_reader(&self, log: &LogRef) -> Result<Arc<dyn LogReader>, OpenError>;
}
