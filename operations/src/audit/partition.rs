//! The audit of one partition: folds the log once up to the committed position, keeping the totals at every position
//! that a response reflects.

use futures_util::stream::{self, StreamExt};
use runtime::clock::now_ms;
use schemas::{BudgetId, BudgetTotals, PersonRow, Position, buckets, record_fingerprint};
use storage::log::{LogIdentity, Record};
use storage::store::{
    Checkpoint, PartitionRef, RecordCounts, RecordFingerprint, StoreError, StoredPartition,
};

use super::history::{HistoryComparison, HistoryPoints, StoredHistory, collect_points};
use super::{AuditDeps, AuditReport};
use crate::BackendError;
use crate::progress::Progress;
use engine::fold::{FoldMode, FoldOutcome, HistoryFloor, InconsistentState, PartitionState};
use generations::comparison::{Comparison, Scope, Subject, by_budget, pair_by_budget};
use storage::retry::{RetryBudget, retry};

/// Buckets read concurrently.
const BUCKET_CONCURRENCY: usize = 16;

/// A budget and the position at which its totals are needed.
#[derive(Debug, Clone)]
pub(super) struct Point {
    pub budget: BudgetId,
    pub position: Position,
}

/// Compares a partition's totals and rows with its log. Returns the log's totals at each point.
///
/// Returns `None` if the log is too short or unreadable, so that the stored data can be neither confirmed nor refuted.
pub(super) async fn audit_partition(
    deps: &AuditDeps,
    id: PartitionRef,
    points: Vec<Point>,
    progress: &Progress,
    report: &mut AuditReport,
) -> Result<Option<Vec<BudgetTotals>>, BackendError> {
    let Some(stored) = StoredData::read(deps, id).await? else {
        report.unchecked.push(format!("partition {} has never been claimed", id.partition));
        return Ok(None);
    };
    let history = StoredHistory::read(deps, id).await?;
    let position = stored.partition.checkpoint.position;
    report.positions.push(position);
    let bounds = retry(|| deps.log.bounds(id.partition)).await?;
    if bounds.low > Position::START {
        let reason = format!(
            "partition {}: the log begins at {}, and no archive has the records before it: set `archive.dir` to the \
             directory of its archive",
            id.partition, bounds.low
        );
        report.unchecked.push(reason);
        return Ok(None);
    }
    let scope = |subject, budget: Option<&BudgetId>| Scope {
        subject,
        partition: Some(id.partition),
        budget: budget.cloned(),
        category: None,
    };
    if bounds.high < position {
        let lost = format!("committed at {position}, but the log ends at {}", bounds.high);
        Comparison::new(scope(Subject::Totals, None), &mut report.differences).add(lost);
        return Ok(None);
    }

    let mut replay = AuditReplay::new(deps, id, &stored, points);
    for fault in replay.restore(stored.rows) {
        Comparison::new(scope(Subject::People, None), &mut report.differences).add(fault);
    }
    // After a transient failure the log is read on from the reached position.
    let mut retries = RetryBudget::default();
    while let Err(error) = read_until(deps, id, &mut replay, position, progress).await {
        match retries.wait(error).await {
            // The fault is the log's or the archive's, not the compared data's.
            Err(BackendError::Invalid(reason)) => {
                report.unchecked.push(format!("partition {}: {reason}", id.partition));
                return Ok(None);
            }
            waited => waited?,
        }
    }
    report.records += position.0;
    // A response beyond the committed position is compared with all committed records.
    replay.reach(Position(u64::MAX));

    report.subjects.extend([Subject::Totals, Subject::People, Subject::History]);
    let StoredPartition { checkpoint, totals, .. } = &stored.partition;
    let mut comparison = Comparison::new(scope(Subject::Totals, None), &mut report.differences);
    compare_checkpoint(&replay, checkpoint, &deps.log.identity(), &mut comparison);
    for (budget, log, found) in pair_by_budget(replay.counted.totals().collect(), by_budget(totals))
    {
        Comparison::new(scope(Subject::Totals, Some(budget)), &mut report.differences)
            .compare_stored_totals(log, found);
    }
    let recounted: Vec<_> = replay.people.recount().collect();
    let found = recounted.iter().map(|(budget, totals)| (*budget, totals)).collect();
    for (budget, log, found) in pair_by_budget(replay.counted.totals().collect(), found) {
        Comparison::new(scope(Subject::People, Some(budget)), &mut report.differences)
            .compare_totals(log, found);
    }
    let found = recounted.iter().map(|(budget, totals)| (*budget, totals)).collect();
    for (budget, stored, found) in pair_by_budget(by_budget(totals), found) {
        Comparison::new(scope(Subject::People, Some(budget)), &mut report.differences)
            .compare_people_digest(stored, found);
    }
    let HistoryComparison { compared, missing, differences } =
        history.compare(&replay.history, &replay.counted);
    report.history_points += compared;
    report.history_missing += missing;
    for (budget, difference) in differences {
        Comparison::new(scope(Subject::History, Some(&budget)), &mut report.differences)
            .add(difference);
    }
    Ok(Some(replay.reached))
}

fn compare_checkpoint(
    replay: &AuditReplay,
    checkpoint: &Checkpoint,
    log: &LogIdentity,
    comparison: &mut Comparison<'_>,
) {
    if checkpoint.identity.as_ref().is_some_and(|identity| identity != log) {
        comparison.add(format!("the checkpoint is of another log: {:?}", checkpoint.identity));
    }
    let RecordCounts { applied, duplicates, dead_lettered } = checkpoint.tally;
    comparison.compare_number("records applied", replay.tally.applied, applied);
    comparison.compare_number("records repeated", replay.tally.duplicates, duplicates);
    comparison.compare_number("records dead-lettered", replay.tally.dead_lettered, dead_lettered);
    if replay.last != checkpoint.last_record {
        comparison.add("the last folded record is another one".to_owned());
    }
}

/// A partition's stored data at one position.
struct StoredData {
    partition: StoredPartition,
    /// Each person's row as of `rows_from` or later, and none beyond the commit.
    rows: Vec<PersonRow>,
    rows_from: Position,
}

impl StoredData {
    /// Reads the person rows between two reads of the checkpoint.
    ///
    /// Rows are written behind the commit. A person without a row has a record after the first checkpoint's
    /// `rows_position`, and no row is beyond the second checkpoint.
    ///
    /// Returns `None` before the first claim.
    async fn read(deps: &AuditDeps, id: PartitionRef) -> Result<Option<Self>, BackendError> {
        let read = || deps.store.read_partition(id);
        let before = retry(read).await?;
        let mut rows = Vec::new();
        let mut loads = stream::iter(buckets())
            .map(|bucket| read_bucket(deps, id, bucket))
            .buffer_unordered(BUCKET_CONCURRENCY);
        while let Some(bucket) = loads.next().await {
            rows.extend(bucket?);
        }
        let (Some(before), Some(after)) = (before, retry(read).await?) else {
            return Ok(None);
        };
        // `rows_position` restarts at 0 when an owner finds that the store has lost commits.
        let rows_from = before.checkpoint.rows_position.min(after.checkpoint.rows_position);
        Ok(Some(Self { partition: after, rows, rows_from }))
    }
}

async fn read_bucket(
    deps: &AuditDeps,
    id: PartitionRef,
    bucket: u8,
) -> Result<Vec<PersonRow>, BackendError> {
    let read = || async {
        // Rows read before a failure are read again.
        let mut rows = Vec::new();
        deps.store.read_people(id, bucket, &mut |row| rows.push(row)).await?;
        Ok::<_, StoreError>(rows)
    };
    Ok(retry(read).await?)
}

/// Folds the records from the reached position up to `position`.
async fn read_until(
    deps: &AuditDeps,
    id: PartitionRef,
    replay: &mut AuditReplay,
    position: Position,
    progress: &Progress,
) -> Result<(), BackendError> {
    let mut batches = deps.log.read(id.partition, replay.position..position);
    while let Some(batch) = batches.recv().await {
        let batch = batch?;
        for record in batch.iter() {
            replay.fold(record).map_err(|fault| BackendError::Invalid(fault.to_string()))?;
        }
        collect_points(&mut replay.counted, &mut replay.history);
        progress.add_done(batch.len() as u64);
    }
    if replay.position < position {
        let reason = format!("the log was read up to {} only, not to {position}", replay.position);
        return Err(BackendError::Unavailable(reason));
    }
    Ok(())
}

/// Two folds of the log: from the start, and on top of the person rows.
struct AuditReplay {
    /// The fold of all records from the start.
    counted: PartitionState,
    /// The history points that it completes.
    history: HistoryPoints,
    tally: RecordCounts,
    last: Option<RecordFingerprint>,
    position: Position,
    /// The person rows and the records after them.
    people: PartitionState,
    rows_from: Position,
    committed: Position,
    /// Points not reached yet, nearest last, each with its index in `reached`.
    points: Vec<(usize, Point)>,
    reached: Vec<BudgetTotals>,
}

impl AuditReplay {
    fn new(deps: &AuditDeps, id: PartitionRef, stored: &StoredData, points: Vec<Point>) -> Self {
        let state = |totals| PartitionState::new(id.partition, deps.log.partitions(), totals);
        let reached = vec![BudgetTotals::default(); points.len()];
        let mut points: Vec<_> = points.into_iter().enumerate().collect();
        points.sort_by_key(|(_, point)| std::cmp::Reverse(point.position));
        let mut counted = state(Vec::new());
        counted.set_history_floor(HistoryFloor::at(now_ms()));
        Self {
            counted,
            history: HistoryPoints::default(),
            tally: RecordCounts::default(),
            last: None,
            position: Position::START,
            people: state(stored.partition.totals.clone()),
            rows_from: stored.rows_from,
            committed: stored.partition.checkpoint.position,
            points,
            reached,
        }
    }

    /// Restores the rows; returns the faults found.
    fn restore(&mut self, rows: Vec<PersonRow>) -> Vec<String> {
        let mut faults = Vec::new();
        for row in rows {
            let (budget, offset) = (&row.budget, row.offset);
            if !self.committed.includes(offset) {
                let committed = self.committed;
                faults.push(format!(
                    "a row of budget `{budget}` has offset {offset}, beyond the committed position {committed}"
                ));
            } else if !self.people.restore(&row) {
                faults.push(format!(
                    "a row at offset {offset} does not fit the totals of budget `{budget}`"
                ));
            }
        }
        faults
    }

    fn fold(&mut self, record: Record<'_>) -> Result<(), InconsistentState> {
        self.reach(Position(record.offset.0));
        match self.counted.fold(record, FoldMode::Live)? {
            FoldOutcome::Applied => self.tally.applied += 1,
            FoldOutcome::Duplicate | FoldOutcome::Late => self.tally.duplicates += 1,
            FoldOutcome::DeadLetter(_) => self.tally.dead_lettered += 1,
        }
        if !self.rows_from.includes(record.offset) {
            self.people.fold(record, FoldMode::Replay)?;
        }
        self.position = record.offset.next();
        self.last = Some(RecordFingerprint {
            offset: record.offset,
            fingerprint: record_fingerprint(record.key, record.value),
        });
        Ok(())
    }

    /// Keeps the totals of the points at or below `position`.
    fn reach(&mut self, position: Position) {
        while let Some((index, point)) = self.points.pop_if(|(_, point)| point.position <= position)
        {
            if let Some(totals) = self.counted.budget_totals(&point.budget) {
                self.reached[index] = totals.clone();
            }
        }
    }
}
