//! The dead letter journal together with the log that has the records.

use std::sync::Arc;

use schemas::{
    LogNumber, PartitionId, PersonKey, Position, RecordAddress, RecordDecoder, partition_for,
};
use storage::log::dead_letters::{
    DeadLetterRecord, DeadLetterRecordError, DeadLetterState, TrackedDeadLetter,
};
use storage::log::{AppendError, DeadLetterJournal, Decision, LogReader, ReadError};
use storage::retry::Transient;

use super::replay_refusal::ReplayRefusal;

/// The journal and the active log.
#[derive(Clone)]
pub struct DeadLetterLog {
    /// The dead letter journal.
    pub journal: Arc<dyn DeadLetterJournal>,
    /// Number of the active log.
    pub number: LogNumber,
    /// Reads the active log.
    pub log: Arc<dyn LogReader>,
}

/// Why the state of dead letters is unknown. Retryable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    /// The journal or the log cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The decision may be in the journal regardless.
    #[error(transparent)]
    Append(#[from] AppendError),
}

impl Transient for JournalError {
    /// Reads are retried below this layer already.
    fn is_transient(&self) -> bool {
        matches!(self, Self::Append(_))
    }
}

/// A dead letter's record, decoded, with the partition it belongs to.
pub(super) struct DecodedDeadLetter {
    pub source: RecordAddress,
    pub key: PersonKey,
    pub value: Vec<u8>,
    pub budget: String,
    pub categories: usize,
    pub accepted_at_ms: u64,
    pub home_partition: PartitionId,
}

impl DeadLetterLog {
    /// Returns the address of a replayed copy. If an attempt ended before it recorded its copy, the copy is recorded
    /// now.
    ///
    /// # Errors
    /// When the journal or the log is unavailable.
    pub async fn replayed(
        &self,
        dead_letter: RecordAddress,
        found: &TrackedDeadLetter,
    ) -> Result<Option<RecordAddress>, JournalError> {
        if let DeadLetterState::Replayed(copy) = found.state {
            return Ok(Some(copy));
        }
        // A replaced log is not read any more.
        let Some(from) = found.replay_from.filter(|_| dead_letter.log == self.number) else {
            return Ok(None);
        };
        let search = async {
            match self.find(dead_letter, found).await? {
                Ok(dead) => Ok(self.appended_since(&dead, from).await?.map(|copy| (dead, copy))),
                // Such a record was never appended again.
                Err(_) => Ok(None),
            }
        };
        match search.await {
            Ok(Some((dead, copy))) => Ok(Some(self.record_replay(&dead, copy).await?)),
            // A record that the log no longer has cannot be searched for.
            Ok(None) | Err(ReadError::Missing(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads and decodes a dead letter's record, or says why it cannot be appended.
    pub(super) async fn find(
        &self,
        dead_letter: RecordAddress,
        found: &TrackedDeadLetter,
    ) -> Result<Result<DecodedDeadLetter, ReplayRefusal>, ReadError> {
        let DeadLetterRecord { key, value } =
            match DeadLetterRecord::read(self.log.as_ref(), dead_letter, &found.meta).await {
                Ok(record) => record,
                Err(DeadLetterRecordError::Other) => return Ok(Err(ReplayRefusal::OtherRecord)),
                Err(DeadLetterRecordError::Read(error)) => return Err(error),
            };
        let mut decoder = RecordDecoder::default();
        let view = match decoder.decode(&key, &value) {
            Ok(view) => view,
            Err(fault) => return Ok(Err(ReplayRefusal::StillRejected(fault.to_string()))),
        };
        let (budget, categories) = (view.budget.to_owned(), view.basis_points.len());
        let (key, accepted_at_ms) = (view.person, view.accepted_at_ms);
        let home_partition = partition_for(&key, self.log.partitions());
        Ok(Ok(DecodedDeadLetter {
            source: dead_letter,
            key,
            value,
            budget,
            categories,
            accepted_at_ms,
            home_partition,
        }))
    }

    /// Searches the log for a copy appended at or after `from`.
    async fn appended_since(
        &self,
        dead: &DecodedDeadLetter,
        from: Position,
    ) -> Result<Option<RecordAddress>, ReadError> {
        let high = self.log.bounds(dead.home_partition).await?.high;
        let mut stream = self.log.read(dead.home_partition, from..high);
        while let Some(batch) = stream.recv().await {
            let batch = batch?;
            let copy = batch
                .iter()
                .find(|record| record.key == dead.key.as_bytes() && record.value == dead.value);
            if let Some(record) = copy {
                let (partition, offset) = (dead.home_partition, record.offset);
                return Ok(Some(RecordAddress { log: self.number, partition, offset }));
            }
        }
        Ok(None)
    }

    /// Records an appended copy in the journal.
    ///
    /// If a repartition switched logs in between, the dead letter stays in state replaying: the journal only knows
    /// addresses of its own log.
    pub(super) async fn record_replay(
        &self,
        dead: &DecodedDeadLetter,
        copy: RecordAddress,
    ) -> Result<RecordAddress, AppendError> {
        let RecordAddress { log, partition, offset } = copy;
        if log == dead.source.log {
            self.journal.decide(dead.source, Decision::Replayed { partition, offset }).await?;
        }
        Ok(copy)
    }
}
