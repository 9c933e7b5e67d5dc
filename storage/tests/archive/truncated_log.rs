//! A log that appears truncated at a position that the test chooses.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use schemas::{PartitionCount, PartitionId, Position};
use storage::log::{LogBounds, LogIdentity, LogReader, ReadError, RecordStream};
use tokio::sync::{mpsc, watch};

/// Chooses the first position of a truncated partition.
#[async_trait]
pub trait TruncationPoint: Send + Sync + 'static {
    /// Returns the partition's first position.
    async fn low(&self, log: &dyn LogReader, partition: PartitionId, high: Position) -> Position;
}

/// A log without the records before its truncation point.
pub struct TruncatedLog<S> {
    pub log: Arc<dyn LogReader>,
    pub truncation: S,
    lows: Mutex<HashMap<PartitionId, Position>>,
}

impl<S: TruncationPoint> TruncatedLog<S> {
    pub fn new(log: Arc<dyn LogReader>, truncation: S) -> Self {
        Self { log, truncation, lows: Mutex::default() }
    }
}

#[async_trait]
impl<S: TruncationPoint> LogReader for TruncatedLog<S> {
    fn partitions(&self) -> PartitionCount {
        self.log.partitions()
    }

    fn identity(&self) -> LogIdentity {
        self.log.identity()
    }

    async fn bounds(&self, partition: PartitionId) -> Result<LogBounds, ReadError> {
        let high = self.log.bounds(partition).await?.high;
        let low = self.truncation.low(&*self.log, partition, high).await;
        self.lows.lock().insert(partition, low);
        Ok(LogBounds { low, high })
    }

    fn follow(
        &self,
        partition: PartitionId,
        start: Position,
        end: watch::Receiver<Position>,
    ) -> RecordStream {
        let low = self.lows.lock().get(&partition).copied().unwrap_or_default();
        if low <= start {
            return self.log.follow(partition, start, end);
        }
        let (sender, stream) = mpsc::channel(1);
        sender.try_send(Err(ReadError::Missing(start))).unwrap();
        stream
    }
}
