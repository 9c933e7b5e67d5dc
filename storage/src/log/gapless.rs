//! Packs the records of a stretch into batches, and notices when one is missing.

use schemas::{PartitionId, Position};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};

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
    end: watch::Receiver<Position>,
    batches: &'s mpsc::Sender<Result<RecordBatch, ReadError>>,
}

/// A stretch whose records `read` pushes, on a thread where it may block.
pub(super) fn stretch(
    partition: PartitionId,
    start: Position,
    end: watch::Receiver<Position>,
    read: impl FnOnce(&mut Gapless<'_>) -> Result<(), ReadError> + Send + 'static,
) -> Stretch {
    in_background(BATCHES_AHEAD, move |batches| {
        read(&mut Gapless { batch: RecordBatch::new(partition), next: start, end, batches })
    })
}

impl Gapless<'_> {
    /// Where the next record stands; waits until one is wanted. `None` once none ever will be. Blocks.
    pub fn wanted(&mut self) -> Option<Position> {
        loop {
            // In this order: an end that was moved before it was let go of is not overlooked.
            let fixed = self.end.has_changed().is_err();
            if self.wants_more() {
                return Some(self.next);
            }
            if fixed || self.batches.is_closed() {
                return None;
            }
            self.wait();
        }
    }

    /// Takes the next record; answers whether the one after it is wanted already.
    pub fn push(&mut self, record: Record<'_>) -> Result<bool, ReadError> {
        if Position(record.offset.0) != self.next {
            return Err(ReadError::Missing(self.next));
        }
        self.batch.push(record);
        self.next = record.offset.next();
        let full = self.batch.len() >= BATCH_RECORDS || self.batch.size_bytes() >= BATCH_BYTES;
        let more = self.wants_more();
        if full || !more {
            self.flush();
        }
        Ok(more)
    }

    /// Gives on what was taken: before it comes to an end though more is wanted.
    pub fn flush(&mut self) {
        let batch = RecordBatch::new(self.batch.partition());
        let full = std::mem::replace(&mut self.batch, batch);
        if !full.is_empty() {
            // Whoever does not want it has dropped the other end, which is seen before the next record.
            let _ = self.batches.blocking_send(Ok(full));
        }
    }

    fn wants_more(&self) -> bool {
        !self.batches.is_closed() && self.next < *self.end.borrow()
    }

    /// Waits until the end moves or is let go of, or nobody takes batches any more.
    fn wait(&mut self) {
        let Self { next, end, batches, .. } = self;
        Handle::current().block_on(async {
            tokio::select! {
                () = batches.closed() => {}
                // An error is the end's having been let go of.
                _ = end.wait_for(|end| *next < *end) => {}
            }
        });
    }
}
