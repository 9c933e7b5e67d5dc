//! The copy of a log: each of its partitions is read from the first record on and appended to the partitions of the new log,
//! a batch at a time. What one person says stays in order: it comes from one partition, and goes to one.

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

/// Before a log is read again that did not answer.
const READ_AGAIN: Duration = Duration::from_secs(1);

/// Why a copy is not made.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It cannot be written, or nobody knows whether it was.
    #[error("the new log: {0}")]
    Append(#[from] AppendError),
    /// A bug.
    #[error("the copy failed: {0}")]
    Failed(String),
}

/// How far a copy has come.
#[derive(Debug)]
pub(super) struct Counts {
    /// For each partition that is read, how far.
    read: Vec<AtomicU64>,
    /// For each partition that is written, how many records.
    written: Vec<AtomicU64>,
    left_out: AtomicU64,
}

impl Counts {
    fn new(from: PartitionCount, to: PartitionCount) -> Self {
        let zeros = |count: PartitionCount| count.partitions().map(|_| AtomicU64::new(0)).collect();
        Self { read: zeros(from), written: zeros(to), left_out: AtomicU64::new(0) }
    }

    /// Up to where each partition has been copied.
    pub fn positions(&self) -> Vec<Position> {
        self.read.iter().map(|position| Position(position.load(Ordering::Acquire))).collect()
    }

    /// Where each partition of the copy ends.
    pub fn ends(&self) -> Vec<Position> {
        self.written.iter().map(|count| Position(count.load(Ordering::Acquire))).collect()
    }

    /// Records that the fold cannot take.
    pub fn left_out(&self) -> u64 {
        self.left_out.load(Ordering::Acquire)
    }
}

/// A copy on its way. Dropping it ends it.
pub(super) struct Copying {
    pub counts: Arc<Counts>,
    ends: Vec<watch::Sender<Position>>,
    partitions: JoinSet<Result<(), CopyError>>,
}

impl Copying {
    /// Begins to copy `from` to `to`; up to where, is said later.
    pub fn start(
        source: &Arc<dyn LogReader>,
        from: &LogRef,
        copier: LogCopier,
        to: &LogRef,
    ) -> Self {
        let counts = Arc::new(Counts::new(from.partitions, to.partitions));
        let copier = Arc::new(copier);
        let (mut ends, mut partitions) = (Vec::new(), JoinSet::new());
        for partition in from.partitions.partitions() {
            let (end, until) = watch::channel(Position::START);
            ends.push(end);
            let copy = PartitionCopy {
                source: Arc::clone(source),
                sieve: Sieve::new(partition, from.partitions),
                copier: Arc::clone(&copier),
                to: to.partitions,
                counts: Arc::clone(&counts),
            };
            partitions.spawn(copy.run(until));
        }
        Self { counts, ends, partitions }
    }

    /// Has it go on up to here, partition by partition.
    ///
    /// # Errors
    /// When it has ended before.
    pub fn go_on_to(&mut self, ends: &[Position]) -> Result<(), CopyError> {
        if let Some(ended) = self.partitions.try_join_next() {
            let early = || CopyError::Failed("it ended before it was to".to_owned());
            return ended.map_err(|error| CopyError::Failed(error.to_string()))?.and(Err(early()));
        }
        for (end, wanted) in self.ends.iter().zip(ends) {
            end.send_if_modified(|end| {
                let further = wanted > end;
                *end = (*end).max(*wanted);
                further
            });
        }
        Ok(())
    }

    /// Ends it there.
    ///
    /// # Errors
    /// When it does not come there.
    pub async fn end_at(mut self, ends: &[Position]) -> Result<Arc<Counts>, CopyError> {
        self.go_on_to(ends)?;
        self.ends.clear();
        while let Some(ended) = self.partitions.join_next().await {
            ended.map_err(|error| CopyError::Failed(error.to_string()))??;
        }
        if self.counts.positions() != ends {
            return Err(CopyError::Failed("it did not come to the log's end".to_owned()));
        }
        Ok(self.counts)
    }
}

/// The copy of one partition.
struct PartitionCopy {
    source: Arc<dyn LogReader>,
    sieve: Sieve,
    copier: Arc<LogCopier>,
    to: PartitionCount,
    counts: Arc<Counts>,
}

impl PartitionCopy {
    async fn run(mut self, until: watch::Receiver<Position>) -> Result<(), CopyError> {
        let partition = self.sieve.partition;
        let mut next = Position::START;
        let mut records = self.source.follow(partition, next, until.clone());
        while let Some(batch) = records.recv().await {
            let batch = match batch {
                Ok(batch) => batch,
                Err(ReadError::Unavailable(reason)) => {
                    tracing::warn!(%partition, reason, "the copy waits for the log");
                    tokio::time::sleep(READ_AGAIN).await;
                    records = self.source.follow(partition, next, until.clone());
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            let copies: Vec<CopiedRecord<'_>> = batch
                .iter()
                .filter_map(|record| {
                    let person = self.sieve.person(record)?;
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

/// Tells whose a record of a partition is, if the fold can take it: a record that is none of ours, or is not where its person
/// belongs, is in the dead letters. In the new log it might be where its person belongs.
struct Sieve {
    partition: PartitionId,
    partitions: PartitionCount,
    decoder: RecordDecoder,
    /// The last that was one: most often the next one's too.
    budget: String,
}

impl Sieve {
    fn new(partition: PartitionId, partitions: PartitionCount) -> Self {
        Self { partition, partitions, decoder: RecordDecoder::default(), budget: String::new() }
    }

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
    fn what_the_fold_cannot_take_is_left_out_wherever_it_would_come_to() {
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
        let good = record(person.as_bytes().as_slice(), value.as_slice());
        let mut sieve = Sieve::new(home, count);
        assert_eq!(sieve.person(good), Some(person));
        assert_eq!(sieve.person(record(b"short", &value)), None);
        assert_eq!(sieve.person(record(person.as_bytes(), b"garbage")), None);
        let mut elsewhere = Sieve::new(PartitionId(1 - home.0), count);
        assert_eq!(elsewhere.person(good), None);
    }
}
