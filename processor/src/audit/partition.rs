//! One partition: the log is folded once, up to the store's position, and on the way stops at every position at which
//! somebody shows totals.

use futures_util::stream::{self, StreamExt};
use schemas::{BudgetId, BudgetTotals, PersonRow, Position, buckets, record_fingerprint};
use storage::log::{LogIdentity, Record};
use storage::store::{Checkpoint, PartitionRef, RecordMark, StoredPartition, Tally};

use super::difference::{Comparison, Place, Scope};
use super::{AuditError, AuditParts, AuditProgress, Report, again};
use crate::again::Patience;
use crate::fold::{Outcome, PartitionState, Reach};

/// Buckets read side by side.
const CONCURRENCY: usize = 16;

/// A budget's totals are wanted as of this position.
#[derive(Debug, Clone)]
pub(super) struct Point {
    pub budget: BudgetId,
    pub position: Position,
}

/// Compares a partition's totals and rows with its log, and answers each point's totals by the log, unless it does not
/// reach that far or cannot be read: what is stored is neither right nor wrong by it then.
pub(super) async fn audit_partition(
    parts: &AuditParts,
    id: PartitionRef,
    points: Vec<Point>,
    progress: &AuditProgress,
    report: &mut Report,
) -> Result<Option<Vec<BudgetTotals>>, AuditError> {
    let Some(stored) = Stored::read(parts, id).await? else {
        report.unchecked.push(format!("partition {} was never claimed", id.partition));
        return Ok(None);
    };
    let position = stored.partition.checkpoint.position;
    report.positions.push(position);
    let bounds = again(|| async { Ok(parts.log.bounds(id.partition).await?) }).await?;
    if bounds.low > Position::START {
        let reason = format!("partition {}: the log begins at {}", id.partition, bounds.low);
        report.unchecked.push(reason);
        return Ok(None);
    }
    let scope = |place, budget: Option<&BudgetId>| Scope {
        place,
        partition: Some(id.partition),
        budget: budget.cloned(),
        category: None,
    };
    if bounds.high < position {
        let lost = format!("committed at {position}, and the log ends at {}", bounds.high);
        Comparison::of(scope(Place::Totals, None), &mut report.differences).note(lost);
        return Ok(None);
    }

    let mut walk = Walk::new(parts, id, &stored, points);
    for fault in walk.restore(stored.rows) {
        Comparison::of(scope(Place::People, None), &mut report.differences).note(fault);
    }
    // A log that is away for a moment is read on from where it was.
    let mut patience = Patience::new();
    while let Err(error) = read_on(parts, id, &mut walk, position, progress).await {
        match patience.wait(error).await {
            // Of the log or its archive, and nothing of what is compared with it.
            Err(AuditError::Wrong(reason)) => {
                report.unchecked.push(format!("partition {}: {reason}", id.partition));
                return Ok(None);
            }
            waited => waited?,
        }
    }
    report.records += position.0;
    // What is shown of records that are not committed is compared with all that are.
    walk.reach(Position(u64::MAX));

    report.places.extend([Place::Totals, Place::People]);
    let StoredPartition { checkpoint, totals, .. } = &stored.partition;
    let mut comparison = Comparison::of(scope(Place::Totals, None), &mut report.differences);
    compare_checkpoint(&walk, checkpoint, &parts.log.identity(), &mut comparison);
    let found: PartitionTotals<'_> =
        totals.iter().map(|(budget, totals)| (budget, totals)).collect();
    for (budget, log, found) in side_by_side(walk.counted.totals().collect(), found) {
        let mut comparison =
            Comparison::of(scope(Place::Totals, Some(budget)), &mut report.differences);
        comparison.totals(log, found);
        comparison.number("position", log.position.0, found.position.0);
        comparison.number("last change in ms since 1970", log.updated_at_ms, found.updated_at_ms);
    }
    let recounted: Vec<_> = walk.people.recount().collect();
    let found = recounted.iter().map(|(budget, totals)| (*budget, totals)).collect();
    for (budget, log, found) in side_by_side(walk.counted.totals().collect(), found) {
        Comparison::of(scope(Place::People, Some(budget)), &mut report.differences)
            .totals(log, found);
    }
    Ok(Some(walk.reached))
}

pub(crate) type PartitionTotals<'a> = Vec<(&'a BudgetId, &'a BudgetTotals)>;

/// The totals of both by budget; those of nobody where one of them knows nothing of a budget.
pub(crate) fn side_by_side<'a>(
    log: PartitionTotals<'a>,
    found: PartitionTotals<'a>,
) -> Vec<(&'a BudgetId, &'a BudgetTotals, &'a BudgetTotals)> {
    static NOBODY: BudgetTotals = BudgetTotals {
        position: Position::START,
        people: 0,
        updated_at_ms: 0,
        categories: Vec::new(),
    };
    let of = |totals: &PartitionTotals<'a>, wanted: &BudgetId| {
        totals.iter().find(|(budget, _)| *budget == wanted).map_or(&NOBODY, |(_, totals)| *totals)
    };
    let only_found =
        found.iter().filter(|(budget, _)| log.iter().all(|(other, _)| other != budget));
    let budgets = log.iter().chain(only_found).map(|(budget, _)| *budget);
    budgets.map(|budget| (budget, of(&log, budget), of(&found, budget))).collect()
}

fn compare_checkpoint(
    walk: &Walk,
    checkpoint: &Checkpoint,
    log: &LogIdentity,
    comparison: &mut Comparison<'_>,
) {
    if checkpoint.identity.as_ref().is_some_and(|identity| identity != log) {
        comparison.note(format!("it is of another log: {:?}", checkpoint.identity));
    }
    let Tally { applied, duplicates, dead_lettered } = checkpoint.tally;
    comparison.number("records applied", walk.tally.applied, applied);
    comparison.number("records repeated", walk.tally.duplicates, duplicates);
    comparison.number("records dead-lettered", walk.tally.dead_lettered, dead_lettered);
    if walk.last != checkpoint.last_record {
        comparison.note("the last record is not the one that was folded".to_owned());
    }
}

/// What the store holds of a partition, at one position.
struct Stored {
    partition: StoredPartition,
    /// Each person's row as of `rows_from` or later, and of nothing that is not committed.
    rows: Vec<PersonRow>,
    rows_from: Position,
}

impl Stored {
    /// Rows are written behind the commit, so they are read between two looks at the checkpoint: whoever's row is not
    /// in the table by the first, has a record from there on; none is of a record that the second does not contain.
    /// `None` before the first claim.
    async fn read(parts: &AuditParts, id: PartitionRef) -> Result<Option<Self>, AuditError> {
        let read = || async { Ok(parts.store.read_partition(id).await?) };
        let before = again(read).await?;
        let mut rows = Vec::new();
        let mut loads = stream::iter(buckets())
            .map(|bucket| read_bucket(parts, id, bucket))
            .buffer_unordered(CONCURRENCY);
        while let Some(bucket) = loads.next().await {
            rows.extend(bucket?);
        }
        let (Some(before), Some(after)) = (before, again(read).await?) else {
            return Ok(None);
        };
        // It goes back to the start when an owner has found that the store had lost commits.
        let rows_from = before.checkpoint.state_position.min(after.checkpoint.state_position);
        Ok(Some(Self { partition: after, rows, rows_from }))
    }
}

async fn read_bucket(
    parts: &AuditParts,
    id: PartitionRef,
    bucket: u8,
) -> Result<Vec<PersonRow>, AuditError> {
    let read = || async {
        // What comes before a failure comes again.
        let mut rows = Vec::new();
        parts.store.read_people(id, bucket, &mut |row| rows.push(row)).await?;
        Ok(rows)
    };
    again(read).await
}

/// Takes the records up to a position, from where the walk is.
async fn read_on(
    parts: &AuditParts,
    id: PartitionRef,
    walk: &mut Walk,
    position: Position,
    progress: &AuditProgress,
) -> Result<(), AuditError> {
    let mut batches = parts.log.read(id.partition, walk.position..position);
    while let Some(batch) = batches.recv().await {
        let batch = batch?;
        batch.iter().for_each(|record| walk.take(record));
        progress.folded(batch.len() as u64);
    }
    if walk.position < position {
        let reason = format!("the log was read up to {} only, not to {position}", walk.position);
        return Err(AuditError::Away(reason));
    }
    Ok(())
}

/// The way through the log.
struct Walk {
    /// Everything, from the start.
    counted: PartitionState,
    tally: Tally,
    last: Option<RecordMark>,
    position: Position,
    /// The rows, and the records after them.
    people: PartitionState,
    rows_from: Position,
    committed: Position,
    /// Not reached yet, the nearest last; each with its place among all of them.
    points: Vec<(usize, Point)>,
    reached: Vec<BudgetTotals>,
}

impl Walk {
    fn new(parts: &AuditParts, id: PartitionRef, stored: &Stored, points: Vec<Point>) -> Self {
        let state = |totals| PartitionState::new(id.partition, parts.log.partitions(), totals);
        let reached = vec![BudgetTotals::default(); points.len()];
        let mut points: Vec<_> = points.into_iter().enumerate().collect();
        points.sort_by_key(|(_, point)| std::cmp::Reverse(point.position));
        Self {
            counted: state(Vec::new()),
            tally: Tally::default(),
            last: None,
            position: Position::START,
            people: state(stored.partition.totals.clone()),
            rows_from: stored.rows_from,
            committed: stored.partition.checkpoint.position,
            points,
            reached,
        }
    }

    /// Puts the rows in; answers what is wrong with them.
    fn restore(&mut self, rows: Vec<PersonRow>) -> Vec<String> {
        let mut faults = Vec::new();
        for row in rows {
            let (budget, offset) = (&row.budget, row.offset);
            if !self.committed.includes(offset) {
                let committed = self.committed;
                faults.push(format!(
                    "a row of budget `{budget}` is of offset {offset}, and committed is {committed}"
                ));
            } else if !self.people.restore(&row) {
                faults.push(format!(
                    "a row at offset {offset} does not fit the totals of budget `{budget}`"
                ));
            }
        }
        faults
    }

    fn take(&mut self, record: Record<'_>) {
        self.reach(Position(record.offset.0));
        match self.counted.fold(record, Reach::Everything) {
            Outcome::Applied => self.tally.applied += 1,
            Outcome::Duplicate => self.tally.duplicates += 1,
            Outcome::DeadLetter(_) => self.tally.dead_lettered += 1,
        }
        if !self.rows_from.includes(record.offset) {
            self.people.fold(record, Reach::PeopleOnly);
        }
        self.position = record.offset.next();
        self.last = Some(RecordMark {
            offset: record.offset,
            fingerprint: record_fingerprint(record.key, record.value),
        });
    }

    /// All records below `position` are in: keeps the totals of the points that are there.
    fn reach(&mut self, position: Position) {
        while let Some((place, point)) = self.points.pop_if(|(_, point)| point.position <= position)
        {
            if let Some(totals) = self.counted.budget_totals(&point.budget) {
                self.reached[place] = totals.clone();
            }
        }
    }
}
