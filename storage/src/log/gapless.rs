//! Packs the records of a stretch into batches, and notices when one is missing.

use std::ops::Range;

use schemas::{PartitionId, Position};
use tokio::sync::mpsc;

use super::background::in_background;
use super::{ReadError, Record, RecordBatch, Stretch};

const BATCH_RECORDS: usize = 2_000;
const BATCH_BYTES: usize = 1 << 20;
/// Batches that wait for whoever takes them.
const BATCHES_AHEAD: usize = 4;

/// The giving end of a [`Stretch`].
pub(super) struct Gapless<'s> {
    batch: RecordBatch,
    next: Position,
    end: Position,
    batches: &'s mpsc::Sender<Result<RecordBatch, ReadError>>,
}

/// A stretch whose records `read` pushes, on a thread where it may block.
pub(super) fn stretch(
    partition: PartitionId,
    stretch: Range<Position>,
    read: impl FnOnce(&mut Gapless<'_>) -> Result<(), ReadError> + Send + 'static,
) -> Stretch {
    in_background(BATCHES_AHEAD, move |batches| {
        let Range { start: next, end } = stretch;
        read(&mut Gapless { batch: RecordBatch::new(partition), next, end, batches })
    })
}

impl Gapless<'_> {
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
}
