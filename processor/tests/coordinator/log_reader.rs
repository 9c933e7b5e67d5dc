//! Reads a test's log without the source.

use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use schemas::{LogRef, PartitionCount, PartitionId, Position};
use storage::log::{LogBounds, LogIdentity, LogReader, LogReaderOpener, ReadError, RecordStream};
use storage::open_error::OpenError;
use tokio::sync::{mpsc, watch};

use crate::process::identity;
use crate::support::log::Log;

/// The log of partition 0; empty until a test sets it.
#[derive(Clone)]
pub struct TestLogs(Arc<Mutex<Arc<Log>>>);

impl Default for TestLogs {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Arc::new(Log::of(0)))))
    }
}

impl TestLogs {
    pub fn set(&self, log: Log) {
        *self.0.lock() = Arc::new(log);
    }

    fn log(&self) -> Arc<Log> {
        Arc::clone(&self.0.lock())
    }
}

#[async_trait]
impl LogReaderOpener for TestLogs {
    async fn open(&self, log: &LogRef) -> Result<Arc<dyn LogReader>, OpenError> {
        self.open_without_archive(log).await
    }

    async fn open_without_archive(&self, _: &LogRef) -> Result<Arc<dyn LogReader>, OpenError> {
        Ok(Arc::new(self.clone()))
    }
}

#[async_trait]
impl LogReader for TestLogs {
    fn partitions(&self) -> PartitionCount {
        PartitionCount::new(1).unwrap()
    }

    fn identity(&self) -> LogIdentity {
        identity()
    }

    async fn bounds(&self, _: PartitionId) -> Result<LogBounds, ReadError> {
        Ok(self.log().bounds())
    }

    fn follow(
        &self,
        _: PartitionId,
        start: Position,
        mut end: watch::Receiver<Position>,
    ) -> RecordStream {
        let (batches, stream) = mpsc::channel(1);
        let logs = self.clone();
        tokio::spawn(async move {
            let mut next = start.0;
            while let Ok(until) = end.wait_for(|end| end.0 > next).await.map(|end| end.0) {
                if batches.send(Ok(logs.log().batch(next, until))).await.is_err() {
                    return;
                }
                next = until;
            }
        });
        stream
    }
}
