//! The bytes of a dead letter: its record in the log, as long as the log was not recreated or truncated.

use schemas::{Position, RecordAddress};

use super::DeadLetterMeta;
use crate::log::{LogReader, ReadError};

/// The bytes of a dead letter's record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetterRecord {
    /// The record's key.
    pub key: Vec<u8>,
    /// The record's value.
    pub value: Vec<u8>,
}

/// Why a dead letter's record could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeadLetterRecordError {
    /// The log is unavailable, or no longer has the record.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The log was recreated, and has another record at this address.
    #[error("another record is at this address now")]
    Other,
}

impl DeadLetterRecord {
    /// Reads the record at `source` and checks it against the journal's `meta`.
    ///
    /// # Errors
    /// When the record cannot be read, or is another one.
    pub async fn read(
        log: &dyn LogReader,
        source: RecordAddress,
        meta: &DeadLetterMeta,
    ) -> Result<Self, DeadLetterRecordError> {
        let start = Position(source.offset.0);
        let mut batches = log.read(source.partition, start..source.offset.next());
        let batch = batches.recv().await.ok_or(ReadError::Missing(start))??;
        let record = batch.iter().next().ok_or(ReadError::Missing(start))?;
        let lengths = (record.key.len() as u64, record.value.len() as u64);
        if lengths != (meta.key_bytes, meta.value_bytes) {
            return Err(DeadLetterRecordError::Other);
        }
        Ok(Self { key: record.key.to_vec(), value: record.value.to_vec() })
    }
}
