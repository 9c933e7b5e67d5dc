//! Following the ends of a log's partitions without joining the group.

use std::sync::Arc;
use std::time::Duration;

use schemas::{PartitionId, Position};
use tokio::sync::watch;
use tokio::time::sleep;

use super::{LogReader, RecordStream};

/// Interval of asking for a partition's end.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Follows the ends of any number of partitions with one client.
pub trait LogTail: Send + Sync + 'static {
    /// Reads contiguous records from `start` on, and further ones as they are appended, until the stream is dropped.
    fn follow(&self, partition: PartitionId, start: Position) -> RecordStream;
}

/// Follows a log by polling a reader for each partition's end.
pub(crate) struct PolledTail(pub Arc<dyn LogReader>);

impl LogTail for PolledTail {
    fn follow(&self, partition: PartitionId, start: Position) -> RecordStream {
        let (end, until) = watch::channel(start);
        let records = self.0.follow(partition, start, until);
        let reader = Arc::clone(&self.0);
        tokio::spawn(async move {
            // The reader drops its side once the stream is dropped.
            while !end.is_closed() {
                if let Ok(bounds) = reader.bounds(partition).await {
                    end.send_if_modified(|end| {
                        let is_extended = bounds.high > *end;
                        *end = bounds.high.max(*end);
                        is_extended
                    });
                }
                tokio::select! {
                    () = end.closed() => return,
                    () = sleep(POLL_INTERVAL) => {}
                }
            }
        });
        records
    }
}
