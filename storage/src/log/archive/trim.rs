//! Deletes from the embedded log what its archive has.
//!
//! A record is deleted only after its segment was synced to the disk and verified as a whole, and only if the log has
//! the same key and value. Records are deleted oldest first, in short transactions: wherever this is interrupted, the
//! archive leads to the log's first record without a gap.

use std::fs::File;
use std::io;
use std::time::{Duration, Instant};

use schemas::{PartitionId, Position};
use tokio_util::sync::CancellationToken;

use super::write::contiguous_end;
use super::{Archive, ArchiveWriteError, ArchiveWriter, Segment, SegmentFault};
use crate::log::sqlite::{SqliteLogTrimmer, SqliteTrimError, TrimConnection};
use crate::log::{LogBounds, RecordBatch};

/// Records deleted in one transaction, which appends wait for.
const RECORDS_PER_TRANSACTION: usize = 1_000;
/// Shortest pause after a transaction, in which appends go on.
const MIN_PAUSE: Duration = Duration::from_millis(5);

/// Why a log could not be trimmed. What was deleted before is in the archive, and the next run continues after it.
#[derive(Debug, thiserror::Error)]
pub enum TrimError {
    /// The log cannot be trimmed.
    #[error(transparent)]
    Log(#[from] SqliteTrimError),
    /// The archive cannot be used, or is not whole.
    #[error(transparent)]
    Archive(#[from] ArchiveWriteError),
}

impl From<SegmentFault> for TrimError {
    fn from(fault: SegmentFault) -> Self {
        ArchiveWriteError::from(fault).into()
    }
}

impl ArchiveWriter {
    /// Deletes a partition's records before `to` from the log, as far as the archive has them. Returns the log's first
    /// position before and after.
    ///
    /// The last record stays in the log, which takes its next offset from it. Calls `on_progress` with the position
    /// that the log begins at. If the future is dropped, it stops after the current transaction.
    ///
    /// # Errors
    /// When the archive has a gap or a damaged segment, the log has other records, or either cannot be used.
    pub async fn trim(
        &self,
        log: SqliteLogTrimmer,
        partition: PartitionId,
        to: Position,
        on_progress: impl Fn(Position) + Send + 'static,
    ) -> Result<(Position, Position), TrimError> {
        let archive = self.archive.clone();
        let stop = CancellationToken::new();
        let _dropped = stop.clone().drop_guard();
        self.locked(move || {
            let (mut log, disk) = (log.connect()?, |reason| archive.disk_error(reason));
            let LogBounds { low, high } = log.bounds(partition)?;
            let segments = archive.segments(partition).map_err(disk)?;
            let end = contiguous_end(partition, &segments)?;
            let to = to.min(end).min(Position(high.0.saturating_sub(1)));
            let mut trimming = Trimming { next: low, to, stop, on_progress };
            (trimming.on_progress)(low);
            for segment in segments.iter().filter(|segment| low < segment.end) {
                if trimming.next < to && !trimming.stop.is_cancelled() {
                    sync(segment).map_err(disk)?;
                    trimming.delete(&archive, segment, &mut log)?;
                }
            }
            Ok((low, trimming.next))
        })
        .await?
    }
}

/// The trimming of one partition.
struct Trimming<F> {
    /// The log's first position.
    next: Position,
    to: Position,
    stop: CancellationToken,
    on_progress: F,
}

impl<F: Fn(Position)> Trimming<F> {
    /// Deletes a segment's records from the log.
    fn delete(
        &mut self,
        archive: &Archive,
        segment: &Segment,
        log: &mut TrimConnection,
    ) -> Result<(), TrimError> {
        let mut records = segment.open(&archive.log)?;
        let mut batch = RecordBatch::new(segment.partition);
        while let Some(record) = records.next()? {
            if !self.to.includes(record.offset) {
                break;
            }
            if self.next.includes(record.offset) {
                continue;
            }
            batch.push(record);
            if batch.len() >= RECORDS_PER_TRANSACTION || batch.is_full() {
                self.delete_batch(&mut batch, log)?;
            }
            if self.stop.is_cancelled() {
                return Ok(());
            }
        }
        self.delete_batch(&mut batch, log)
    }

    fn delete_batch(
        &mut self,
        batch: &mut RecordBatch,
        log: &mut TrimConnection,
    ) -> Result<(), TrimError> {
        let batch = std::mem::replace(batch, RecordBatch::new(batch.partition()));
        let Some(end) = batch.end() else { return Ok(()) };
        let started = Instant::now();
        log.delete(&batch)?;
        self.next = end;
        (self.on_progress)(end);
        std::thread::sleep(started.elapsed().max(MIN_PAUSE));
        Ok(())
    }
}

/// Syncs a segment and its name to the disk, which a program that has copied it may not have done.
fn sync(segment: &Segment) -> io::Result<()> {
    File::open(&segment.path)?.sync_all()?;
    // Its directory, and the directory that has the name of that one.
    segment
        .path
        .ancestors()
        .skip(1)
        .take(2)
        .filter(|dir| !dir.as_os_str().is_empty())
        .try_for_each(|dir| File::open(dir)?.sync_all())
}
