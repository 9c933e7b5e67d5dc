//! A log whose beginning is gone, as far as a test says.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use schemas::{PartitionCount, PartitionId, Position};
use storage::log::{LogBounds, LogIdentity, LogReader, ReadError, Stretch};
use tokio::sync::{mpsc, watch};

/// What is told of a partition's bounds before they are told.
#[async_trait]
pub trait Shorten: Send + Sync + 'static {
    /// Where it begins now.
    async fn low(&self, log: &dyn LogReader, partition: PartitionId, high: Position) -> Position;
}

/// A log without the records below where it is said to begin.
pub struct Shortened<S> {
    pub log: Arc<dyn LogReader>,
    pub shorten: S,
    lows: Mutex<HashMap<PartitionId, Position>>,
}

impl<S: Shorten> Shortened<S> {
    pub fn new(log: Arc<dyn LogReader>, shorten: S) -> Self {
        Self { log, shorten, lows: Mutex::default() }
    }
}

#[async_trait]
impl<S: Shorten> LogReader for Shortened<S> {
    fn partitions(&self) -> PartitionCount {
        self.log.partitions()
    }

    fn identity(&self) -> LogIdentity {
        self.log.identity()
    }

    async fn bounds(&self, partition: PartitionId) -> Result<LogBounds, ReadError> {
        let high = self.log.bounds(partition).await?.high;
        let low = self.shorten.low(&*self.log, partition, high).await;
        self.lows.lock().unwrap().insert(partition, low);
        Ok(LogBounds { low, high })
    }

    fn follow(
        &self,
        partition: PartitionId,
        start: Position,
        end: watch::Receiver<Position>,
    ) -> Stretch {
        let low = self.lows.lock().unwrap().get(&partition).copied().unwrap_or_default();
        if low <= start {
            return self.log.follow(partition, start, end);
        }
        let (sender, stretch) = mpsc::channel(1);
        sender.try_send(Err(ReadError::Missing(start))).unwrap();
        stretch
    }
}
