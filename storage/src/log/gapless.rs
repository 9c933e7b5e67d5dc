//! Packs the records of a stretch into batches, and notices when one is missing.

use std::ops::Range;

use schemas::{PartitionId, Position};
use tokio::sync::mpsc;

use super::{ReadError, Record, RecordBatch, Stretch};

const BATCH_RECORDS: usize = 2_000;
const BATCH_BYTES: usize = 1 << 20;
/// Batches that wait for whoever takes them.
const BATCHES_AHEAD: usize = 4;

/// The giving end of a [`Stretch`]. Blocks while nobody takes what was given: it wants a thread.
pub(super) struct Gapless {
    batch: RecordBatch,
    next: Position,
    end: Position,
    batches: mpsc::Sender<Result<RecordBatch, ReadError>>,
}

impl Gapless {
    /// Both ends.
    pub fn new(partition: PartitionId, stretch: Range<Position>) -> (Self, Stretch) {
        let (batches, stretched) = mpsc::channel(BATCHES_AHEAD);
        let batch = RecordBatch::new(partition);
        (Self { batch, next: stretch.start, end: stretch.end, batches }, stretched)
    }

    /// The position of the next record; `None` once the stretch is complete, or nobody wants it any more.
    pub fn next(&self) -> Option<Position> {
        (self.next < self.end && !self.batches.is_closed()).then_some(self.next)
    }

    /// Takes the next record; answers the position of the one after it, as [`Gapless::next`] does.
    pub fn push(&mut self, record: Record<'_>) -> Result<Option<Position>, ReadError> {
        if Position(record.offset.0) != self.next {
            return Err(ReadError::Missing(self.next));
        }
        self.batch.push(record);
        self.next = record.offset.next();
        let full = self.batch.len() >= BATCH_RECORDS || self.batch.size_bytes() >= BATCH_BYTES;
        if full || self.next >= self.end {
            let batch = RecordBatch::new(self.batch.partition());
            let full = std::mem::replace(&mut self.batch, batch);
            // Whoever does not want it has dropped the other end, which `next` sees.
            let _ = self.batches.blocking_send(Ok(full));
        }
        Ok(self.next())
    }

    /// Ends it with what went wrong.
    pub fn fail(self, error: ReadError) {
        let _ = self.batches.blocking_send(Err(error));
    }
}
