//! The bytes of a letter. They are in the log, where its record stands, as long as that log is the one of before.

use schemas::{Position, Receipt};

use super::PutAway;
use crate::log::{LogReader, ReadError};

/// The bytes of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LetterRecord {
    /// Its key.
    pub key: Vec<u8>,
    /// Its value.
    pub value: Vec<u8>,
}

/// Why a letter has no bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LetterRecordError {
    /// The log does not answer, or has it no more.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The log was created anew.
    #[error("another record stands there now")]
    Other,
}

impl LetterRecord {
    /// Reads the record of the letter of that place, as it was put away.
    ///
    /// # Errors
    /// When it cannot be read, or is another one.
    pub async fn read(
        log: &dyn LogReader,
        place: Receipt,
        put_away: &PutAway,
    ) -> Result<Self, LetterRecordError> {
        let start = Position(place.offset.0);
        let mut stretch = log.read(place.partition, start..place.offset.next());
        let batch = stretch.recv().await.ok_or(ReadError::Missing(start))??;
        let record = batch.iter().next().ok_or(ReadError::Missing(start))?;
        let bytes = (record.key.len() as u64, record.value.len() as u64);
        if bytes != (put_away.key_bytes, put_away.value_bytes) {
            return Err(LetterRecordError::Other);
        }
        Ok(Self { key: record.key.to_vec(), value: record.value.to_vec() })
    }
}
