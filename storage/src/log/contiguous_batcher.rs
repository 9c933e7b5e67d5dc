//! Packs a reader's records into batches, and detects missing records.

use schemas::{PartitionId, Position};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};

use super::reader_thread::spawn_reader;
use super::{ReadError, Record, RecordBatch, RecordStream};

/// Batches that may wait for the receiver.
const STREAM_CAPACITY: usize = 4;

/// The sending end of a [`RecordStream`]. Accepts contiguous records only.
pub(super) struct ContiguousBatcher<'s> {
    batch: RecordBatch,
    next: Position,
    end: watch::Receiver<Position>,
    stream: &'s mpsc::Sender<Result<RecordBatch, ReadError>>,
}

/// Spawns a thread that runs `read`, and returns the stream of the records that `read` pushes.
pub(super) fn spawn_record_stream(
    partition: PartitionId,
    start: Position,
    end: watch::Receiver<Position>,
    read: impl FnOnce(&mut ContiguousBatcher<'_>) -> Result<(), ReadError> + Send + 'static,
) -> RecordStream {
    spawn_reader(STREAM_CAPACITY, move |stream| {
        let batch = RecordBatch::new(partition);
        read(&mut ContiguousBatcher { batch, next: start, end, stream })
    })
}

impl ContiguousBatcher<'_> {
    /// Waits until the next record is requested, and returns its position. `None` when no more records will be.
    /// Blocks.
    pub fn wait_for_request(&mut self) -> Option<Position> {
        loop {
            // Checked before the end is read: an end that was advanced just before its sender was dropped still counts.
            let end_is_final = self.end.has_changed().is_err();
            if self.wants_more() {
                return Some(self.next);
            }
            if end_is_final || self.stream.is_closed() {
                return None;
            }
            self.wait();
        }
    }

    /// Adds the next record, and returns whether the record after it is already requested.
    pub fn push(&mut self, record: Record<'_>) -> Result<bool, ReadError> {
        if Position(record.offset.0) != self.next {
            return Err(ReadError::Missing(self.next));
        }
        self.batch.push(record);
        self.next = record.offset.next();
        let more = self.wants_more();
        if self.batch.is_full() || !more {
            self.flush();
        }
        Ok(more)
    }

    /// Sends the records added so far. Needed only when `read` returns before the requested end.
    pub fn flush(&mut self) {
        let batch = RecordBatch::new(self.batch.partition());
        let batch = std::mem::replace(&mut self.batch, batch);
        if !batch.is_empty() {
            // A send fails only when the receiver was dropped, which is checked before the next record.
            let _ = self.stream.blocking_send(Ok(batch));
        }
    }

    fn wants_more(&self) -> bool {
        !self.stream.is_closed() && self.next < *self.end.borrow()
    }

    /// Waits until the end advances, or either end of the stream is dropped.
    fn wait(&mut self) {
        let Self { next, end, stream, .. } = self;
        Handle::current().block_on(async {
            tokio::select! {
                () = stream.closed() => {}
                // An error means that the end's sender was dropped.
                _ = end.wait_for(|end| *next < *end) => {}
            }
        });
    }
}
