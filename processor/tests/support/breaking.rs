//! A log whose first stretch breaks off before its first record, without saying why.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use schemas::{PartitionCount, PartitionId, Position};
use storage::log::{LogBounds, LogIdentity, LogReader, ReadError, Stretch};
use tokio::sync::{mpsc, watch};

pub struct Breaking {
    log: Arc<dyn LogReader>,
    broke: AtomicBool,
}

impl Breaking {
    pub fn new(log: Arc<dyn LogReader>) -> Self {
        Self { log, broke: AtomicBool::new(false) }
    }

    pub fn broke(&self) -> bool {
        self.broke.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl LogReader for Breaking {
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
    ) -> Stretch {
        if self.broke.swap(true, Ordering::Relaxed) {
            return self.log.follow(partition, start, end);
        }
        mpsc::channel(1).1
    }
}
