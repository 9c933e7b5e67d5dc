//! A log reader whose first record stream ends before its first record, without an error.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use schemas::{PartitionCount, PartitionId, Position};
use storage::log::{LogBounds, LogIdentity, LogReader, ReadError, RecordStream};
use tokio::sync::{mpsc, watch};

/// Ends its first record stream early and delegates everything else.
pub struct InterruptedReader {
    log: Arc<dyn LogReader>,
    interrupted: AtomicBool,
}

impl InterruptedReader {
    pub fn new(log: Arc<dyn LogReader>) -> Self {
        Self { log, interrupted: AtomicBool::new(false) }
    }

    pub fn was_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl LogReader for InterruptedReader {
    fn partitions(&self) -> PartitionCount {
        self.log.partitions()
    }

    fn identity(&self) -> LogIdentity {
        self.log.identity()
    }

    async fn bounds(&self, partition: PartitionId) -> Result<LogBounds, ReadError> {
        self.log.bounds(partition).await
    }

    fn follow(
        &self,
        partition: PartitionId,
        start: Position,
        end: watch::Receiver<Position>,
    ) -> RecordStream {
        if self.interrupted.swap(true, Ordering::Relaxed) {
            return self.log.follow(partition, start, end);
        }
        mpsc::channel(1).1
    }
}
