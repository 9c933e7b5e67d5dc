//! Where letters and their records are: the book and the log, and what the one says of the other.

use std::sync::Arc;

use schemas::{LogNumber, PartitionId, PersonKey, Position, Receipt, RecordDecoder, partition_for};
use storage::log::letters::{Letter, LetterRecord, LetterRecordError, LetterState};
use storage::log::{AppendError, Decision, LetterBook, LogReader, ReadError};

use super::Refusal;
use crate::again::Away;

/// Where letters and their records are.
#[derive(Clone)]
pub struct LetterLog {
    /// The book of dead letters.
    pub book: Arc<dyn LetterBook>,
    /// Which log takes submissions.
    pub number: LogNumber,
    /// Where the records are: that log.
    pub log: Arc<dyn LogReader>,
}

/// Why it is not known what has become of letters: try again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BookError {
    /// The book or the log cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// What was decided may be in the book all the same.
    #[error(transparent)]
    Append(#[from] AppendError),
}

impl Away for BookError {
    /// Whoever reads has waited already.
    fn is_away(&self) -> bool {
        matches!(self, Self::Append(_))
    }
}

/// The record of a letter, and where it belongs.
pub(super) struct Dead {
    pub letter: Receipt,
    pub key: PersonKey,
    pub value: Vec<u8>,
    pub budget: String,
    pub categories: usize,
    pub accepted_at_ms: u64,
    pub home: PartitionId,
}

impl LetterLog {
    /// Where a letter's record stands once more, if it does, though nobody came to say so. That is in the book then.
    ///
    /// # Errors
    /// When the book or the log does not answer.
    pub async fn replayed(
        &self,
        letter: Receipt,
        found: &Letter,
    ) -> Result<Option<Receipt>, BookError> {
        if let LetterState::Replayed(place) = found.state {
            return Ok(Some(place));
        }
        // Of a log that has been replaced nobody can say it any more.
        let Some(from) = found.begun.filter(|_| letter.log == self.number) else {
            return Ok(None);
        };
        let looked = async {
            match self.find(letter, found).await? {
                Ok(dead) => Ok(self.appended_since(&dead, from).await?.map(|place| (dead, place))),
                // Nobody could append it.
                Err(_) => Ok(None),
            }
        };
        match looked.await {
            Ok(Some((dead, place))) => Ok(Some(self.enter(&dead, place).await?)),
            // What the log has no more can be looked for no more.
            Ok(None) | Err(ReadError::Missing(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The letter's record; or why it cannot be appended.
    pub(super) async fn find(
        &self,
        letter: Receipt,
        found: &Letter,
    ) -> Result<Result<Dead, Refusal>, ReadError> {
        let LetterRecord { key, value } =
            match LetterRecord::read(self.log.as_ref(), letter, &found.put_away).await {
                Ok(record) => record,
                Err(LetterRecordError::Other) => return Ok(Err(Refusal::OtherRecord)),
                Err(LetterRecordError::Read(error)) => return Err(error),
            };
        let mut decoder = RecordDecoder::default();
        let view = match decoder.decode(&key, &value) {
            Ok(view) => view,
            Err(fault) => return Ok(Err(Refusal::StillDead(fault.to_string()))),
        };
        let (budget, categories) = (view.budget.to_owned(), view.basis_points.len());
        let (key, accepted_at_ms) = (view.person, view.accepted_at_ms);
        let home = partition_for(&key, self.log.partitions());
        Ok(Ok(Dead { letter, key, value, budget, categories, accepted_at_ms, home }))
    }

    /// Where the record was appended by an attempt that did not come to say so.
    async fn appended_since(
        &self,
        dead: &Dead,
        from: Position,
    ) -> Result<Option<Receipt>, ReadError> {
        let high = self.log.bounds(dead.home).await?.high;
        let mut stretch = self.log.read(dead.home, from..high);
        while let Some(batch) = stretch.recv().await {
            let batch = batch?;
            let same = batch
                .iter()
                .find(|record| record.key == dead.key.as_bytes() && record.value == dead.value);
            if let Some(record) = same {
                let (partition, offset) = (dead.home, record.offset);
                return Ok(Some(Receipt { log: self.number, partition, offset }));
            }
        }
        Ok(None)
    }

    /// What the book says of a record that was appended is in the letter's own log. Where submissions were moved to another
    /// one just then, the letter stays as one that is being replayed, and cannot be any more.
    pub(super) async fn enter(&self, dead: &Dead, place: Receipt) -> Result<Receipt, AppendError> {
        let Receipt { log, partition, offset } = place;
        if log == dead.letter.log {
            self.book.decide(dead.letter, Decision::Replayed { partition, offset }).await?;
        }
        Ok(place)
    }
}
