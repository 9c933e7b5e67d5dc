//! Copies the records of a log to the partitions of a new log.
//!
//! Every partition is read from its first record and appended batch by batch. The order of one
//! person's submissions is kept: they come from one partition and go to one partition.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use schemas::{
    BudgetId, LogRef, PartitionCount, PartitionId, PersonKey, Position, RecordDecoder,
    partition_for,
};
use storage::log::kafka::{CopiedRecord, LogCopier};
use storage::log::{AppendError, LogReader, ReadError, Record};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Pause before an unavailable log is read again.
const READ_RETRY_DELAY: Duration = Duration::from_secs(1);

/// Why a copy failed.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The old log cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// An append to the new log failed, or its outcome is unknown.
    #[error("append to the new log: {0}")]
    Append(#[from] AppendError),
    /// A task panicked or ended early: a bug.
    #[error("the copy failed: {0}")]
    Failed(String),
}

/// Progress of a copy.
#[derive(Debug)]
pub(super) struct CopyCounts {
    /// Next position to copy, by partition of the old log.
    read: Vec<AtomicU64>,
    /// Records appended, by partition of the new log.
    written: Vec<AtomicU64>,
    /// Records that were not copied because the fold rejects them.
    left_out: AtomicU64,
}

impl CopyCounts {
    fn new(from: PartitionCount, to: PartitionCount) -> Self {
        let zeros = |count: PartitionCount| count.partitions().map(|_| AtomicU64::new(0)).collect();
        Self { read: zeros(from), written: zeros(to), left_out: AtomicU64::new(0) }
    }

    /// Returns the position up to which each partition of the old log is copied.
    pub fn positions(&self) -> Vec<Position> {
        self.read.iter().map(|position| Position(position.load(Ordering::Acquire))).collect()
    }

    /// Returns the end of each partition of the new log.
    pub fn ends(&self) -> Vec<Position> {
        self.written.iter().map(|count| Position(count.load(Ordering::Acquire))).collect()
    }

    /// Returns how many records were not copied because the fold rejects them.
    pub fn left_out(&self) -> u64 {
        self.left_out.load(Ordering::Acquire)
    }
}

/// A running copy. Dropping it aborts it.
pub(super) struct LogCopy {
    pub counts: Arc<CopyCounts>,
    ends: Vec<watch::Sender<Position>>,
    partitions: JoinSet<Result<(), CopyError>>,
}

impl LogCopy {
    /// Starts copying `from` to `to`, up to the positions that [`extend_to`](Self::extend_to) sets.
    pub fn start(
        source: &Arc<dyn LogReader>,
        from: &LogRef,
        copier: LogCopier,
        to: &LogRef,
    ) -> Self {
        let counts = Arc::new(CopyCounts::new(from.partitions, to.partitions));
        let copier = Arc::new(copier);
        let (mut ends, mut partitions) = (Vec::new(), JoinSet::new());
        for partition in from.partitions.partitions() {
            let (end, until) = watch::channel(Position::START);
            ends.push(end);
            let copy = PartitionCopy {
                source: Arc::clone(source),
                filter: CopyFilter::new(partition, from.partitions),
                copier: Arc::clone(&copier),
                to: to.partitions,
                counts: Arc::clone(&counts),
            };
            partitions.spawn(copy.run(until));
        }
        Self { counts, ends, partitions }
    }

    /// Extends the copy to these positions, one per partition.
    ///
    /// # Errors
    /// When the copy of a partition has failed.
    pub fn extend_to(&mut self, ends: &[Position]) -> Result<(), CopyError> {
        if let Some(ended) = self.partitions.try_join_next() {
            let early = || CopyError::Failed("the task of a partition ended early".to_owned());
            return ended.map_err(|error| CopyError::Failed(error.to_string()))?.and(Err(early()));
        }
        for (end, wanted) in self.ends.iter().zip(ends) {
            end.send_if_modified(|end| {
                let extended = wanted > end;
                *end = (*end).max(*wanted);
                extended
            });
        }
        Ok(())
    }

    /// Copies up to these positions and ends the copy.
    ///
    /// # Errors
    /// When the copy fails before.
    pub async fn finish_at(mut self, ends: &[Position]) -> Result<Arc<CopyCounts>, CopyError> {
        self.extend_to(ends)?;
        self.ends.clear();
        while let Some(ended) = self.partitions.join_next().await {
            ended.map_err(|error| CopyError::Failed(error.to_string()))??;
        }
        if self.counts.positions() != ends {
            return Err(CopyError::Failed("it ended before the end of the log".to_owned()));
        }
        Ok(self.counts)
    }
}

/// The copy of one partition of the old log.
struct PartitionCopy {
    source: Arc<dyn LogReader>,
    filter: CopyFilter,
    copier: Arc<LogCopier>,
    to: PartitionCount,
    counts: Arc<CopyCounts>,
}

impl PartitionCopy {
    async fn run(mut self, until: watch::Receiver<Position>) -> Result<(), CopyError> {
        let partition = self.filter.partition;
        let mut next = Position::START;
        let mut records = self.source.follow(partition, next, until.clone());
        while let Some(batch) = records.recv().await {
            let batch = match batch {
                Ok(batch) => batch,
                Err(ReadError::Unavailable(reason)) => {
                    tracing::warn!(
                        %partition,
                        error = reason,
                        retry_in_ms = READ_RETRY_DELAY.as_millis() as u64,
                        "failed to read the log to copy, retrying",
                    );
                    tokio::time::sleep(READ_RETRY_DELAY).await;
                    records = self.source.follow(partition, next, until.clone());
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            let copies: Vec<CopiedRecord<'_>> = batch
                .iter()
                .filter_map(|record| {
                    let person = self.filter.person(record)?;
                    let partition = partition_for(&person, self.to);
                    Some(CopiedRecord { partition, key: record.key, value: record.value })
                })
                .collect();
            self.copier.append(copies.iter().copied()).await?;
            for copy in &copies {
                if let Some(written) = self.counts.written.get(copy.partition.0 as usize) {
                    written.fetch_add(1, Ordering::AcqRel);
                }
            }
            let left_out = batch.len() - copies.len();
            self.counts.left_out.fetch_add(left_out as u64, Ordering::AcqRel);
            next = batch.end().unwrap_or(next);
            if let Some(read) = self.counts.read.get(partition.0 as usize) {
                read.store(next.0, Ordering::Release);
            }
        }
        Ok(())
    }
}

/// Selects the records of a partition that the fold does not reject by themselves.
///
/// Undecodable and misplaced records are dead letters already. A misplaced record must not be
/// copied: its partition in the new log could be the right one. A record with a number of
/// categories other than its budget's is copied, and rejected again.
struct CopyFilter {
    partition: PartitionId,
    partitions: PartitionCount,
    decoder: RecordDecoder,
    /// The last valid budget id, which most often is the next record's too.
    budget: String,
}

impl CopyFilter {
    fn new(partition: PartitionId, partitions: PartitionCount) -> Self {
        Self { partition, partitions, decoder: RecordDecoder::default(), budget: String::new() }
    }

    /// Returns the person of a record to copy.
    fn person(&mut self, record: Record<'_>) -> Option<PersonKey> {
        let view = self.decoder.decode(record.key, record.value).ok()?;
        if partition_for(&view.person, self.partitions) != self.partition {
            return None;
        }
        if view.budget != self.budget {
            BudgetId::parse(view.budget).ok()?;
            view.budget.clone_into(&mut self.budget);
        }
        Some(view.person)
    }
}

#[cfg(test)]
mod tests {
    use schemas::{Action, Allocation, Offset, Submission, SubmissionId, encode_record};
    use uuid::Uuid;

    use super::*;

    #[test]
    fn records_that_the_fold_rejects_are_not_copied() {
        let count = PartitionCount::new(2).unwrap();
        let person = PersonKey::from_bytes([7; 16]);
        let home = partition_for(&person, count);
        let value = encode_record(&Submission {
            budget: BudgetId::parse("taxes").unwrap(),
            person,
            id: SubmissionId(Uuid::from_u128(1)),
            accepted_at_ms: 1,
            action: Action::Allocate(Allocation::new(&[10_000, 0]).unwrap()),
        });
        let record = |key, value| Record { offset: Offset(0), key, value };
        let valid = record(person.as_bytes().as_slice(), value.as_slice());
        let mut filter = CopyFilter::new(home, count);
        assert_eq!(filter.person(valid), Some(person));
        assert_eq!(filter.person(record(b"short", &value)), None);
        assert_eq!(filter.person(record(person.as_bytes(), b"garbage")), None);
        let mut elsewhere = CopyFilter::new(PartitionId(1 - home.0), count);
        assert_eq!(elsewhere.person(valid), None);
    }
}
