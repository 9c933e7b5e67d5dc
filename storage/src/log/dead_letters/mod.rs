//! Dead letters: records that the fold rejected, and what operators decided about them.
//!
//! Both are entries of one append-only journal. The state of a dead letter follows from its entries: see `index`. The
//! journal does not hold the record's bytes, which stay in the log: see `record`.

mod index;
mod record;

use std::sync::Arc;

use async_trait::async_trait;
use schemas::{LogRef, Offset, PartitionId, Position, RecordAddress};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use uuid::Uuid;

use super::{AppendError, LogReader, ReadError};
use crate::open_error::OpenError;

pub use index::{DeadLetterIndex, DeadLetterPage, DeadLetterState, TrackedDeadLetter};
pub use record::{DeadLetterRecord, DeadLetterRecordError};

/// A record that the fold rejected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// The record's address, which identifies the dead letter: appending it twice changes nothing.
    pub source: RecordAddress,
    /// Why the fold rejected the record.
    pub reason: String,
    /// The record's key, unchanged.
    pub key: Vec<u8>,
    /// The record's value, unchanged.
    pub value: Vec<u8>,
}

/// Appends dead letters to the journal.
#[async_trait]
pub trait DeadLetterWriter: Send + Sync + 'static {
    /// Appends dead letters durably.
    ///
    /// # Errors
    /// When some of them may be missing from the journal: append all of them again.
    async fn append(&self, letters: &[DeadLetter]) -> Result<(), AppendError>;
}

/// An operator's decision about a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// The record is about to be appended to the log again.
    Replay {
        /// The attempt that appends it. Of several attempts, the first in the journal does.
        attempt: Uuid,
        /// The partition to append it to.
        partition: PartitionId,
        /// The new record is at this position or later.
        from: Position,
    },
    /// The record was appended to the log again.
    Replayed {
        /// The new record's partition, in the log of the dead letter.
        partition: PartitionId,
        /// The new record's offset.
        offset: Offset,
    },
    /// The dead letter needs no action.
    Dropped,
    /// A decision that only a newer release knows. Never written.
    #[serde(skip)]
    Unrecognized,
}

impl Decision {
    /// Decodes a decision of the journal.
    pub(super) fn parse(json: &str) -> Self {
        serde_json::from_str(json).unwrap_or(Self::Unrecognized)
    }
}

/// Describes a dead letter without its bytes, which stay in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetterMeta {
    /// Why the fold rejected the record.
    pub reason: String,
    /// Length of the record's key, in bytes.
    pub key_bytes: u64,
    /// Length of the record's value, in bytes.
    pub value_bytes: u64,
    /// When the dead letter was appended, in milliseconds since 1970.
    pub appended_at_ms: u64,
}

/// One entry of the dead letter journal. A dead letter may have several entries of each kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JournalEntry {
    /// A dead letter, identified by its record's address.
    DeadLetter(RecordAddress, DeadLetterMeta),
    /// A decision about a dead letter.
    Decision(RecordAddress, Decision),
    /// An entry that another program wrote.
    Foreign,
}

/// The dead letter journal, as operators use it.
#[async_trait]
pub trait DeadLetterJournal: Send + Sync + 'static {
    /// Reads all entries that the journal has now. Decisions follow their dead letter, in the order of their making.
    /// An error is the last item; dropping the receiver ends the reading.
    fn entries(&self) -> mpsc::Receiver<Result<JournalEntry, ReadError>>;

    /// Appends a decision durably.
    ///
    /// # Errors
    /// When the decision may be missing from the journal: read the journal, or append the decision again.
    async fn decide(&self, letter: RecordAddress, decision: Decision) -> Result<(), AppendError>;
}

/// Opens the dead letter journal and the logs that hold the records. Opened for each request: requests are rare, and
/// a process that serves them must be able to start while the log is unavailable.
#[async_trait]
pub trait DeadLetterJournalOpener: Send + Sync + 'static {
    /// Opens the journal. Creates nothing.
    ///
    /// # Errors
    /// When the journal does not exist.
    fn open_dead_letter_journal(&self) -> Result<Arc<dyn DeadLetterJournal>, OpenError>;

    /// Opens a log, which holds the bytes of its dead letters. Creates nothing.
    ///
    /// # Errors
    /// When the log is unavailable or does not exist.
    async fn open_log_reader(&self, log: &LogRef) -> Result<Arc<dyn LogReader>, OpenError>;
}
