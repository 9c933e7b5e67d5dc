//! A snapshot: one partition's allocations at one position, taken while the partition moves on.
//!
//! Person rows are written behind the commits, so they are read between two reads of the checkpoint: a person without a
//! row has a record after the first checkpoint's `rows_position`, and no row is beyond the second checkpoint. The log
//! records between those positions are then folded on top of the rows, one bucket at a time: memory holds one bucket,
//! temporary files hold the rest.

use std::io;
use std::path::Path;

use futures_util::stream::{self, StreamExt};
use schemas::{
    BudgetId, BudgetTotals, Offset, PartitionCount, PartitionId, PersonKey, PersonRow, Position,
    RecordDecoder, bucket_of, buckets,
};
use storage::log::Record;
use storage::store::{Checkpoint, PartitionRef, RecordFingerprint, StoreError};

use super::spool::Spool;
use super::{ExportDeps, ExportError, ExportProgress, invalid};
use crate::BackendError;
use engine::fold::{FoldMode, PartitionState};
use engine::partition::{HaltReason, check_log, matches_fingerprint};
use storage::retry::{RetryBudget, retry};

/// Buckets read concurrently.
const BUCKET_CONCURRENCY: usize = 4;

/// One budget's allocations in one partition at one position.
pub(super) struct Snapshot {
    /// Generation and partition.
    pub id: PartitionRef,
    partitions: PartitionCount,
    budget: BudgetId,
    /// The position of the snapshot.
    pub position: Position,
    /// The totals committed with this position.
    pub totals: BudgetTotals,
    /// Frames of a person key and the encoded row.
    rows: Spool,
    /// Frames of offset, key and value: the budget's records that the rows may lack.
    records: Spool,
}

impl Snapshot {
    /// Takes the snapshot of a partition. A partition that was never claimed has an empty snapshot at its start.
    pub async fn take(
        deps: &ExportDeps,
        id: PartitionRef,
        dir: &Path,
        progress: &ExportProgress,
    ) -> Result<Self, ExportError> {
        let read = || deps.store.read_partition(id);
        let before = retry(read).await?;
        let rows = read_rows(deps, id, dir, progress).await?;
        let before = before.map_or(Checkpoint::START, |stored| stored.checkpoint);
        let (checkpoint, totals) = retry(read)
            .await?
            .map_or((Checkpoint::START, Vec::new()), |stored| (stored.checkpoint, stored.totals));
        // `rows_position` restarts at 0 when an owner finds that the store has lost commits.
        let rows_position = checkpoint.rows_position.min(before.rows_position);
        let checkpoint = Checkpoint { rows_position, ..checkpoint };
        let records = read_records(deps, id, &checkpoint, dir).await?;
        let of_budget = totals.into_iter().find(|(budget, _)| *budget == deps.budget.id);
        Ok(Self {
            id,
            partitions: deps.log.partitions(),
            budget: deps.budget.id.clone(),
            position: checkpoint.position,
            totals: of_budget.map(|(_, totals)| totals).unwrap_or_default(),
            rows,
            records,
        })
    }

    /// Returns the counted allocations of one bucket, ordered by person key.
    pub fn allocations(&self, bucket: u8) -> Result<Vec<Vec<u16>>, ExportError> {
        let totals = vec![(self.budget.clone(), self.totals.clone())];
        let mut state = PartitionState::new(self.id.partition, self.partitions, totals);
        self.rows.for_each(bucket, |frame| {
            let (person, row) = frame.split_at_checked(PersonKey::BYTES).ok_or_else(corrupt_spool)?;
            let row = PersonRow::decode(person, row).map_err(invalid)?;
            if !self.position.includes(row.offset) {
                let (partition, position) = (self.id.partition, self.position);
                return Err(invalid(format!(
                    "partition {partition}: a person row has offset {}, beyond the committed position {position}",
                    row.offset
                )));
            }
            if state.restore(&row) {
                return Ok(());
            }
            Err(invalid(format!(
                "partition {}: a person row at offset {} does not fit the totals",
                self.id.partition, row.offset
            )))
        })?;
        self.records.for_each(bucket, |frame| {
            let (offset, record) = frame.split_first_chunk().ok_or_else(corrupt_spool)?;
            let (key, value) =
                record.split_at_checked(PersonKey::BYTES).ok_or_else(corrupt_spool)?;
            let offset = Offset(u64::from_le_bytes(*offset));
            // The outcome is in the totals already; only the person's current allocation matters here.
            state.fold(Record { offset, key, value }, FoldMode::Replay).map_err(invalid)?;
            Ok::<_, ExportError>(())
        })?;
        let allocations = state.allocations(&self.budget);
        Ok(allocations.into_iter().map(|(_, basis_points)| basis_points).collect())
    }
}

/// The spool returned other bytes than were written.
fn corrupt_spool() -> ExportError {
    ExportError::Spool(io::ErrorKind::InvalidData.into())
}

/// Reads the budget's person rows, each at its own offset.
async fn read_rows(
    deps: &ExportDeps,
    id: PartitionRef,
    dir: &Path,
    progress: &ExportProgress,
) -> Result<Spool, ExportError> {
    let mut spool = Spool::new(dir).map_err(ExportError::Spool)?;
    let mut reading = stream::iter(buckets())
        .map(|bucket| read_bucket(deps, id, bucket))
        .buffer_unordered(BUCKET_CONCURRENCY);
    while let Some(bucket) = reading.next().await {
        let (bucket, rows) = bucket?;
        for row in rows {
            let frame = [row.person.as_bytes(), &row.encode_state()[..]];
            spool.push(bucket, &frame).map_err(ExportError::Spool)?;
        }
        progress.complete_step();
    }
    Ok(spool)
}

async fn read_bucket(
    deps: &ExportDeps,
    id: PartitionRef,
    bucket: u8,
) -> Result<(u8, Vec<PersonRow>), StoreError> {
    let budget = &deps.budget.id;
    retry(|| async {
        // Rows read before a failure are read again.
        let mut rows = Vec::new();
        let mut take = |row: PersonRow| {
            if row.budget == *budget {
                rows.push(row);
            }
        };
        deps.store.read_people(id, bucket, &mut take).await?;
        Ok((bucket, rows))
    })
    .await
}

/// Reads the budget's records from `rows_position` up to the checkpoint's position.
async fn read_records(
    deps: &ExportDeps,
    id: PartitionRef,
    checkpoint: &Checkpoint,
    dir: &Path,
) -> Result<Spool, ExportError> {
    let partition = id.partition;
    let bounds = retry(|| deps.log.bounds(partition)).await?;
    let resume = check_log(checkpoint, &deps.log.identity(), bounds).map_err(halted(partition))?;
    let spool = Spool::new(dir).map_err(ExportError::Spool)?;
    let mut reader = TailReader {
        budget: &deps.budget.id,
        next: resume.from,
        mark: resume.expected_record,
        spool,
    };
    // After a transient failure the log is read on from the reached position.
    let mut retries = RetryBudget::default();
    while let Err(error) = reader.read_until(deps, partition, checkpoint.position).await {
        retries.wait(error).await?;
    }
    Ok(reader.spool)
}

fn halted(partition: PartitionId) -> impl Fn(HaltReason) -> ExportError {
    move |reason| invalid(format!("partition {partition}: {reason}"))
}

/// Reads the log tail into a spool.
struct TailReader<'b> {
    budget: &'b BudgetId,
    next: Position,
    /// The last folded record, which identifies the log.
    mark: Option<RecordFingerprint>,
    spool: Spool,
}

impl TailReader<'_> {
    /// Spools the records up to a position. A stream that ends early without an error was interrupted.
    async fn read_until(
        &mut self,
        deps: &ExportDeps,
        partition: PartitionId,
        position: Position,
    ) -> Result<(), ExportError> {
        let mut decoder = RecordDecoder::default();
        let mut batches = deps.log.read(partition, self.next..position);
        while let Some(batch) = batches.recv().await {
            for record in batch?.iter() {
                let Record { offset, key, value } = record;
                self.next = offset.next();
                let mark = self.mark.filter(|mark| mark.offset == offset);
                if mark.is_some_and(|mark| !matches_fingerprint(mark, record)) {
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
            return Err(BackendError::Unavailable(reason).into());
        }
        Ok(())
    }
}
