//! Reading the simulated log without the consumer group, as owners do whose partition is moved.

use std::sync::Arc;

use async_trait::async_trait;
use schemas::{LogRef, PartitionCount, PartitionId, Position};
use storage::log::{LogBounds, LogIdentity, LogReader, LogReaderOpener, ReadError, RecordStream};
use storage::open_error::OpenError;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

use crate::network::PartitionFault;
use crate::world::World;

/// Percentage of streams that end with an error.
const FAILING_STREAM_PERCENT: u32 = 5;

pub fn log_identity() -> LogIdentity {
    LogIdentity { cluster_id: "simulated".into(), topic_id: "log".into() }
}

pub struct SimulatedLogs(pub Arc<World>);

#[async_trait]
impl LogReaderOpener for SimulatedLogs {
    async fn open(&self, log: &LogRef) -> Result<Arc<dyn LogReader>, OpenError> {
        self.open_without_archive(log).await
    }

    async fn open_without_archive(&self, _: &LogRef) -> Result<Arc<dyn LogReader>, OpenError> {
        sleep(self.0.draw_ms(0..=50)).await;
        Ok(Arc::new(SimulatedReader(Arc::clone(&self.0))))
    }
}

struct SimulatedReader(Arc<World>);

#[async_trait]
impl LogReader for SimulatedReader {
    fn partitions(&self) -> PartitionCount {
        self.0.log.count
    }

    fn identity(&self) -> LogIdentity {
        log_identity()
    }

    async fn bounds(&self, partition: PartitionId) -> Result<LogBounds, ReadError> {
        sleep(self.0.draw_ms(0..=5)).await;
        match self.0.fault_of(partition) {
            Some(PartitionFault::NoLeader) => Err(ReadError::Unavailable("no leader".into())),
            _ => Ok(self.0.log.bounds(partition)),
        }
    }

    fn follow(
        &self,
        partition: PartitionId,
        start: Position,
        mut end: watch::Receiver<Position>,
    ) -> RecordStream {
        let world = Arc::clone(&self.0);
        let (batches, stream) = mpsc::channel(2);
        tokio::spawn(async move {
            let (mut next, fails) = (start.0, world.chance(FAILING_STREAM_PERCENT));
            loop {
                let until = end.borrow_and_update().0;
                while next < until {
                    let to = until.min(next + world.draw(|rng| rng.u64(1..=40)));
                    let read = Ok(world.log.batch(partition, next, to));
                    let read =
                        if fails { Err(ReadError::Unavailable("lost".into())) } else { read };
                    if batches.send(read).await.is_err() || fails {
                        return;
                    }
                    next = to;
                    sleep(world.draw_ms(0..=10)).await;
                }
                tokio::select! {
                    changed = end.changed() => if changed.is_err() { return },
                    () = batches.closed() => return,
                }
            }
        });
        stream
    }
}
