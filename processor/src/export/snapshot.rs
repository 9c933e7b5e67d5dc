//! One partition's people, all as of one position, though it moves on while they are read.
//!
//! Rows are written behind the commits. So they are read between two looks at the checkpoint: whoever's row is not in
//! the table by the first has a record from its `state_position` on, and no row is of a record that the second does not
//! contain. Then the log's records between those two positions are folded into the rows, one bucket after the other:
//! in memory is one bucket, on the disk what was read.

use std::io;
use std::path::Path;

use futures_util::stream::{self, StreamExt};
use schemas::{
    BudgetId, BudgetTotals, Offset, PartitionCount, PartitionId, PersonKey, PersonRow, Position,
    RecordDecoder, bucket_of, buckets,
};
use storage::log::Record;
use storage::store::{Checkpoint, PartitionRef, RecordMark};

use super::spool::Spool;
use super::{ExportError, ExportParts, ExportProgress, again};
use crate::again::Patience;
use crate::fold::{PartitionState, Reach};
use crate::partition::{HaltReason, check_log, matches_mark};

/// Buckets read side by side.
const CONCURRENCY: usize = 4;

/// One budget's people in one partition, as of one position.
pub(super) struct Snapshot {
    /// Of which generation and partition.
    pub id: PartitionRef,
    partitions: PartitionCount,
    budget: BudgetId,
    /// Everything is as of here.
    pub position: Position,
    /// The totals that were committed with the position.
    pub totals: BudgetTotals,
    /// Each a person's key, and their state as it is stored.
    rows: Spool,
    /// Each an offset, a key and a value, of the budget's records that the rows may lack.
    records: Spool,
}

impl Snapshot {
    /// Reads a partition. One that nobody ever claimed has no people, as of its start.
    pub async fn take(
        parts: &ExportParts,
        id: PartitionRef,
        dir: &Path,
        progress: &ExportProgress,
    ) -> Result<Self, ExportError> {
        let read = || async { Ok(parts.store.read_partition(id).await?) };
        let before = again(read).await?;
        let rows = read_rows(parts, id, dir, progress).await?;
        let before = before.map_or(Checkpoint::START, |stored| stored.checkpoint);
        let (checkpoint, totals) = again(read)
            .await?
            .map_or((Checkpoint::START, Vec::new()), |stored| (stored.checkpoint, stored.totals));
        // It goes back to the start when an owner has found that the store had lost commits.
        let state_position = checkpoint.state_position.min(before.state_position);
        let checkpoint = Checkpoint { state_position, ..checkpoint };
        let records = read_records(parts, id, &checkpoint, dir).await?;
        let of_budget = totals.into_iter().find(|(budget, _)| *budget == parts.budget.id);
        Ok(Self {
            id,
            partitions: parts.log.partitions(),
            budget: parts.budget.id.clone(),
            position: checkpoint.position,
            totals: of_budget.map(|(_, totals)| totals).unwrap_or_default(),
            rows,
            records,
        })
    }

    /// What everyone of one bucket gives who counts, in the order of their keys.
    pub fn allocations(&self, bucket: u8) -> Result<Vec<Vec<u16>>, ExportError> {
        let totals = vec![(self.budget.clone(), self.totals.clone())];
        let mut state = PartitionState::new(self.id.partition, self.partitions, totals);
        self.rows.each(bucket, |frame| {
            let (person, row) = frame.split_at_checked(PersonKey::BYTES).ok_or_else(torn)?;
            let row = PersonRow::decode(person, row).map_err(wrong)?;
            if !self.position.includes(row.offset) {
                let (partition, position) = (self.id.partition, self.position);
                return Err(wrong(format!(
                    "partition {partition}: a person's row is of offset {}, and committed is {position}",
                    row.offset
                )));
            }
            if state.restore(&row) {
                return Ok(());
            }
            Err(wrong(format!(
                "partition {}: a person's row at offset {} does not fit the totals",
                self.id.partition, row.offset
            )))
        })?;
        self.records.each(bucket, |frame| {
            let (offset, record) = frame.split_first_chunk().ok_or_else(torn)?;
            let (key, value) = record.split_at_checked(PersonKey::BYTES).ok_or_else(torn)?;
            let offset = Offset(u64::from_le_bytes(*offset));
            // What came of it is in the totals: here it is only of interest what its person gives now.
            let _ = state.fold(Record { offset, key, value }, Reach::PeopleOnly);
            Ok::<_, ExportError>(())
        })?;
        let allocations = state.allocations(&self.budget);
        Ok(allocations.into_iter().map(|(_, basis_points)| basis_points).collect())
    }
}

fn wrong(reason: impl ToString) -> ExportError {
    ExportError::Wrong(reason.to_string())
}

/// What was written to a spool is not what is read from it.
fn torn() -> ExportError {
    ExportError::Spool(io::ErrorKind::InvalidData.into())
}

/// Everyone's row in the budget, some as of later than others.
async fn read_rows(
    parts: &ExportParts,
    id: PartitionRef,
    dir: &Path,
    progress: &ExportProgress,
) -> Result<Spool, ExportError> {
    let mut spool = Spool::new(dir).map_err(ExportError::Spool)?;
    let mut reading = stream::iter(buckets())
        .map(|bucket| read_bucket(parts, id, bucket))
        .buffer_unordered(CONCURRENCY);
    while let Some(bucket) = reading.next().await {
        let (bucket, rows) = bucket?;
        for row in rows {
            let frame = [row.person.as_bytes(), &row.encode_state()[..]];
            spool.push(bucket, &frame).map_err(ExportError::Spool)?;
        }
        progress.step();
    }
    Ok(spool)
}

async fn read_bucket(
    parts: &ExportParts,
    id: PartitionRef,
    bucket: u8,
) -> Result<(u8, Vec<PersonRow>), ExportError> {
    let budget = &parts.budget.id;
    again(|| async {
        // What comes before a failure comes again.
        let mut rows = Vec::new();
        let mut take = |row: PersonRow| {
            if row.budget == *budget {
                rows.push(row);
            }
        };
        parts.store.read_people(id, bucket, &mut take).await?;
        Ok((bucket, rows))
    })
    .await
}

/// The budget's records from where everyone's row is in the table up to the checkpoint's position.
async fn read_records(
    parts: &ExportParts,
    id: PartitionRef,
    checkpoint: &Checkpoint,
    dir: &Path,
) -> Result<Spool, ExportError> {
    let partition = id.partition;
    let bounds = again(|| async { Ok(parts.log.bounds(partition).await?) }).await?;
    let resume = check_log(checkpoint, &parts.log.identity(), bounds).map_err(halted(partition))?;
    let spool = Spool::new(dir).map_err(ExportError::Spool)?;
    let mut walk = Walk { budget: &parts.budget.id, next: resume.from, mark: resume.mark, spool };
    // A log that is away for a moment is read on from where it was.
    let mut patience = Patience::new();
    while let Err(error) = walk.read_on(parts, partition, checkpoint.position).await {
        patience.wait(error).await?;
    }
    Ok(walk.spool)
}

fn halted(partition: PartitionId) -> impl Fn(HaltReason) -> ExportError {
    move |reason| wrong(format!("partition {partition}: {reason}"))
}

/// The way through the log.
struct Walk<'b> {
    budget: &'b BudgetId,
    next: Position,
    /// A record by which the log is known again.
    mark: Option<RecordMark>,
    spool: Spool,
}

impl Walk<'_> {
    /// Takes what comes up to a position. A stretch that ends before it, without saying why, is one that was broken off.
    async fn read_on(
        &mut self,
        parts: &ExportParts,
        partition: PartitionId,
        position: Position,
    ) -> Result<(), ExportError> {
        let mut decoder = RecordDecoder::default();
        let mut batches = parts.log.read(partition, self.next..position);
        while let Some(batch) = batches.recv().await {
            for record in batch?.iter() {
                let Record { offset, key, value } = record;
                self.next = offset.next();
                let mark = self.mark.filter(|mark| mark.offset == offset);
                if mark.is_some_and(|mark| !matches_mark(mark, record)) {
                    return Err(halted(partition)(HaltReason::OtherRecord(offset)));
                }
                let Ok(view) = decoder.decode(key, value) else { continue };
                if view.budget == self.budget.as_str() {
                    let frame = [&offset.0.to_le_bytes()[..], key, value];
                    let bucket = bucket_of(&view.person);
                    self.spool.push(bucket, &frame).map_err(ExportError::Spool)?;
                }
            }
        }
        if self.next < position {
            let next = self.next;
            let reason =
                format!("partition {partition}: read up to {next} only, not to {position}");
            return Err(ExportError::Away(reason));
        }
        Ok(())
    }
}
