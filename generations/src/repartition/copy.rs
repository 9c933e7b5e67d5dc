//! Copies the records of a log to the partitions of a new log.
//!
//! Every partition is read from its first record and appended batch by batch. The order of one
//! person's submissions is kept: they come from one partition and go to one partition.
//!
//! Markers are not copied, since a marker in one partition of the old log says nothing about one of the new log.
//! Instead, what they make late is left out, and a budget that is closed in every partition of the old log is closed in
//! every partition of the new one once all records are copied.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use runtime::clock::now_ms;
use schemas::{
    BudgetId, Closing, LogRef, Marker, MarkerKind, PartitionCount, PartitionId, PersonKey,
    Position, RecordDecoder, RecordEncoder, RecordKind, SubmissionId, partition_for,
};
use storage::log::kafka::{CopiedRecord, LogCopier};
use storage::log::{AppendError, LogReader, ReadError, Record};
use storage::store::RecordCounts;
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
    rejected: AtomicU64,
    /// Records that were not copied because they stand behind a close marker.
    late: AtomicU64,
    /// Markers, which are not copied.
    markers: AtomicU64,
    /// Markers that were appended to the new log at the end.
    appended_markers: AtomicU64,
    /// The state of each partition's markers, once the partition is copied to the end.
    closings: Mutex<Vec<Closings>>,
}

/// The state of each budget that has markers in a partition.
type Closings = BTreeMap<BudgetId, Closing>;

impl CopyCounts {
    fn new(from: PartitionCount, to: PartitionCount) -> Self {
        let zeros = |count: PartitionCount| count.partitions().map(|_| AtomicU64::new(0)).collect();
        Self {
            read: zeros(from),
            written: zeros(to),
            rejected: AtomicU64::new(0),
            late: AtomicU64::new(0),
            markers: AtomicU64::new(0),
            appended_markers: AtomicU64::new(0),
            closings: Mutex::default(),
        }
    }

    /// Returns the position up to which each partition of the old log is copied.
    pub fn positions(&self) -> Vec<Position> {
        self.read.iter().map(|position| Position(position.load(Ordering::Acquire))).collect()
    }

    /// Returns the end of each partition of the new log.
    pub fn ends(&self) -> Vec<Position> {
        self.written.iter().map(|count| Position(count.load(Ordering::Acquire))).collect()
    }

    /// Returns how many records were not copied.
    pub fn left_out(&self) -> u64 {
        let RecordCounts { applied, duplicates, dead_lettered } = self.left_out_by_outcome();
        applied + duplicates + dead_lettered
    }

    /// Returns how many records were not copied, by their outcome in the fold.
    pub fn left_out_by_outcome(&self) -> RecordCounts {
        RecordCounts {
            applied: self.markers.load(Ordering::Acquire),
            duplicates: self.late.load(Ordering::Acquire),
            dead_lettered: self.rejected.load(Ordering::Acquire),
        }
    }

    /// Returns how many markers were appended to the new log at the end.
    pub fn appended_markers(&self) -> u64 {
        self.appended_markers.load(Ordering::Acquire)
    }

    fn count_written(&self, partition: PartitionId) {
        if let Some(written) = self.written.get(partition.0 as usize) {
            written.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Returns the budgets that are closed in every partition of the old log, with the latest revision of their
    /// markers.
    fn closed_everywhere(&self) -> Vec<(BudgetId, u64)> {
        let closings = self.closings.lock();
        // A partition without markers of the budget is not among the copied ones' closed budgets.
        let Some(budgets) = closings.first().filter(|_| closings.len() == self.read.len()) else {
            return Vec::new();
        };
        let revision = |budget: &BudgetId| {
            let closed = closings.iter().map(|of| of.get(budget).filter(|it| it.is_closed()));
            closed
                .map(|it| it.map(Closing::revision))
                .collect::<Option<Vec<_>>>()?
                .into_iter()
                .max()
        };
        budgets.keys().filter_map(|budget| Some((budget.clone(), revision(budget)?))).collect()
    }
}

/// A running copy. Dropping it aborts it.
pub(super) struct LogCopy {
    pub counts: Arc<CopyCounts>,
    copier: Arc<LogCopier>,
    to: PartitionCount,
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
        Self { counts, copier, to: to.partitions, ends, partitions }
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
        self.append_markers().await?;
        Ok(self.counts)
    }

    /// Closes the budgets in the new log that are closed everywhere in the old one: their results are final and stay
    /// so. Other closing budgets are closed by the new log's owners.
    async fn append_markers(&self) -> Result<(), CopyError> {
        let mut encoder = RecordEncoder::default();
        for (budget, revision) in self.counts.closed_everywhere() {
            let marker = Marker { kind: MarkerKind::Close, revision };
            for partition in self.to.partitions() {
                let key = Marker::key(&budget, partition, self.to);
                let id = SubmissionId(uuid::Uuid::new_v4());
                let value = encoder.encode_marker(&budget, marker, id, now_ms());
                let record = CopiedRecord { partition, key: key.as_bytes(), value: &value };
                self.copier.append([record].into_iter()).await?;
                self.counts.count_written(partition);
                self.counts.appended_markers.fetch_add(1, Ordering::AcqRel);
            }
        }
        Ok(())
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
                    let person = self.filter.person(record, &self.counts)?;
                    let partition = partition_for(&person, self.to);
                    Some(CopiedRecord { partition, key: record.key, value: record.value })
                })
                .collect();
            self.copier.append(copies.iter().copied()).await?;
            copies.iter().for_each(|copy| self.counts.count_written(copy.partition));
            next = batch.end().unwrap_or(next);
            if let Some(read) = self.counts.read.get(partition.0 as usize) {
                read.store(next.0, Ordering::Release);
            }
        }
        let mut closings = self.counts.closings.lock();
        closings.push(self.filter.closings);
        Ok(())
    }
}

/// Selects the records of a partition that the fold does not reject by themselves, and that are not late.
///
/// Annulments are never late: one behind a close marker is copied, and so gets in front of the new log's marker.
/// Undecodable and misplaced records are dead letters already. A misplaced record must not be
/// copied: its partition in the new log could be the right one. A record with a number of
/// categories other than its budget's is copied, and rejected again.
struct CopyFilter {
    partition: PartitionId,
    partitions: PartitionCount,
    decoder: RecordDecoder,
    /// The last valid budget id, which most often is the next record's too.
    budget: Option<BudgetId>,
    closings: Closings,
}

impl CopyFilter {
    fn new(partition: PartitionId, partitions: PartitionCount) -> Self {
        let (decoder, closings) = (RecordDecoder::default(), Closings::new());
        Self { partition, partitions, decoder, budget: None, closings }
    }

    /// Returns the person of a record to copy. Counts the others.
    fn person(&mut self, record: Record<'_>, counts: &CopyCounts) -> Option<PersonKey> {
        let count = |left_out: &AtomicU64| {
            left_out.fetch_add(1, Ordering::AcqRel);
            None
        };
        let Ok(view) = self.decoder.decode(record.key, record.value) else {
            return count(&counts.rejected);
        };
        if partition_for(&view.person, self.partitions) != self.partition {
            return count(&counts.rejected);
        }
        let budget = match &mut self.budget {
            Some(budget) if budget.as_str() == view.budget => budget,
            budget => match BudgetId::parse(view.budget) {
                Ok(parsed) => budget.insert(parsed),
                Err(_) => return count(&counts.rejected),
            },
        };
        if let RecordKind::Marker(marker) = view.kind {
            self.closings.entry(budget.clone()).or_default().fold(marker, record.offset);
            return count(&counts.markers);
        }
        let is_submission = view.kind == RecordKind::Submission;
        if is_submission && self.closings.get(budget).is_some_and(Closing::is_closed) {
            return count(&counts.late);
        }
        Some(view.person)
    }
}

#[cfg(test)]
mod tests {
    use schemas::{
        Action, Allocation, AnnulmentAction, AnnulmentId, AnnulmentStamp, Offset, PublishStep,
        Submission, SubmissionId, encode_record,
    };
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
        let counts = CopyCounts::new(count, count);
        let mut filter = CopyFilter::new(home, count);
        assert_eq!(filter.person(valid, &counts), Some(person));
        assert_eq!(filter.person(record(b"short", &value), &counts), None);
        assert_eq!(filter.person(record(person.as_bytes(), b"garbage"), &counts), None);
        let mut elsewhere = CopyFilter::new(PartitionId(1 - home.0), count);
        assert_eq!(elsewhere.person(valid, &counts), None);
        assert_eq!(counts.left_out_by_outcome().dead_lettered, 3);
    }

    #[test]
    fn late_submissions_and_markers_are_not_copied_and_only_final_budgets_are_closed_anew() {
        let count = PartitionCount::new(2).unwrap();
        let counts = CopyCounts::new(count, count);
        let budget = BudgetId::parse("taxes").unwrap();
        let id = SubmissionId(Uuid::from_u128(1));
        let value = |kind, revision| {
            let marker = Marker { kind, revision };
            RecordEncoder::default().encode_marker(&budget, marker, id, 1)
        };
        for partition in count.partitions() {
            assert_eq!(counts.closed_everywhere(), [], "a partition is open");
            let key = Marker::key(&budget, partition, count);
            let withdrawal = encode_record(&Submission {
                budget: budget.clone(),
                person: key,
                id,
                accepted_at_ms: 1,
                action: Action::Withdraw,
            });
            let (close, reopen) = (value(MarkerKind::Close, 2), value(MarkerKind::Reopen, 3));
            let again = value(MarkerKind::Close, 4);
            let stamp = AnnulmentStamp { appended_at_ms: 1, publish_step: PublishStep::ONE };
            let annulment = RecordEncoder::default().encode_annulment(
                &budget,
                AnnulmentId(Uuid::from_u128(2)),
                AnnulmentAction::Annul,
                stamp,
            );
            let log = [
                &withdrawal,
                &close,
                &withdrawal,
                &annulment,
                &reopen,
                &withdrawal,
                &again,
                &withdrawal,
                &annulment,
            ];
            let mut filter = CopyFilter::new(partition, count);
            let copied: Vec<bool> = (0..)
                .map(Offset)
                .zip(log)
                .map(|(offset, value)| Record { offset, key: key.as_bytes(), value })
                .map(|record| filter.person(record, &counts).is_some())
                .collect();
            assert_eq!(copied, [true, false, false, true, false, true, false, false, true]);
            counts.closings.lock().push(filter.closings);
        }
        assert_eq!(counts.closed_everywhere(), [(budget.clone(), 4)]);
        let left_out = RecordCounts { applied: 6, duplicates: 4, dead_lettered: 0 };
        assert_eq!(counts.left_out_by_outcome(), left_out);
    }
}
