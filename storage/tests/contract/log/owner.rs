//! A partition handler that records its calls.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use schemas::{Offset, PartitionId, Position};
use storage::log::{
    BoundsReader, LogBounds, PartitionHandler, RecordBatch, Revocation, StartPosition,
};
use tokio::runtime::Handle;

/// A delivered record: offset, key, value.
pub type Read = (Offset, Vec<u8>, Vec<u8>);

type StartPositionOf = dyn Fn(PartitionId) -> StartPosition + Send + Sync;
type Accepts = dyn FnMut(u64, &RecordBatch) -> bool + Send;

pub struct Owner {
    runtime: Handle,
    start_of: Box<StartPositionOf>,
    accepts: Mutex<Box<Accepts>>,
    calls: Mutex<Calls>,
}

#[derive(Default)]
struct Calls {
    owned: BTreeMap<PartitionId, LogBounds>,
    lost_any: bool,
    read: BTreeMap<PartitionId, Vec<Read>>,
    deliveries: u64,
    accepted_batches: u64,
    highs: BTreeMap<PartitionId, Position>,
    starts: Vec<(PartitionId, StartPosition)>,
    failed_reads: Vec<PartitionId>,
    rejoin: bool,
}

impl Owner {
    pub fn new(
        start_of: impl Fn(PartitionId) -> StartPosition + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            runtime: Handle::current(),
            start_of: Box::new(start_of),
            accepts: Mutex::new(Box::new(|_, _| true)),
            calls: Mutex::default(),
        })
    }

    /// Creates an owner that starts every partition at the log's start.
    pub fn from_start() -> Arc<Self> {
        Self::new(|_| StartPosition::At(Position::START))
    }

    /// Sets which deliveries are accepted from now on. `accepts` gets the number of deliveries so far and the batch.
    pub fn accepts(&self, accepts: impl FnMut(u64, &RecordBatch) -> bool + Send + 'static) {
        *self.accepts.lock() = Box::new(accepts);
    }

    pub fn rejoin(&self) {
        self.calls.lock().rejoin = true;
    }

    /// Changes where a partition is read from now on.
    pub fn start(&self, partition: u32, start: StartPosition) {
        self.calls.lock().starts.push((PartitionId(partition), start));
    }

    /// Returns the partitions that could not be read further, in order.
    pub fn failed_reads(&self) -> Vec<PartitionId> {
        self.calls.lock().failed_reads.clone()
    }

    pub fn owns(&self) -> usize {
        self.calls.lock().owned.len()
    }

    /// Returns a partition's bounds at its assignment; `None` while it is not assigned.
    pub fn bounds(&self, partition: u32) -> Option<LogBounds> {
        self.calls.lock().owned.get(&PartitionId(partition)).copied()
    }

    pub fn has_lost_any(&self) -> bool {
        self.calls.lock().lost_any
    }

    pub fn read(&self, partition: u32) -> Vec<Read> {
        self.calls.lock().read.get(&PartitionId(partition)).cloned().unwrap_or_default()
    }

    pub fn deliveries(&self) -> u64 {
        self.calls.lock().deliveries
    }

    pub fn accepted_batches(&self) -> u64 {
        self.calls.lock().accepted_batches
    }

    pub fn high(&self, partition: u32) -> Option<Position> {
        self.calls.lock().highs.get(&PartitionId(partition)).copied()
    }
}

impl PartitionHandler for Owner {
    fn assigned(&self, partitions: &[PartitionId], bounds: &Arc<dyn BoundsReader>) {
        for partition in partitions {
            let bounds = self.runtime.block_on(bounds.bounds(*partition)).unwrap();
            let mut calls = self.calls.lock();
            calls.owned.insert(*partition, bounds);
            calls.starts.push((*partition, (self.start_of)(*partition)));
        }
    }

    fn take_starts(&self) -> Vec<(PartitionId, StartPosition)> {
        std::mem::take(&mut self.calls.lock().starts)
    }

    fn revoked(&self, partitions: &[PartitionId], revocation: Revocation) {
        let mut calls = self.calls.lock();
        calls.owned.retain(|owned, _| !partitions.contains(owned));
        calls.lost_any |= revocation == Revocation::Lost;
    }

    fn deliver(&self, batch: RecordBatch, _timeout: Duration) -> Result<(), RecordBatch> {
        let mut calls = self.calls.lock();
        calls.deliveries += 1;
        if !(self.accepts.lock())(calls.deliveries, &batch) {
            return Err(batch);
        }
        calls.accepted_batches += 1;
        let read = calls.read.entry(batch.partition()).or_default();
        read.extend(batch.iter().map(|r| (r.offset, r.key.to_vec(), r.value.to_vec())));
        Ok(())
    }

    fn high_watermark(&self, partition: PartitionId, high: Position) {
        self.calls.lock().highs.insert(partition, high);
    }

    fn read_failed(&self, partition: PartitionId, _reason: &str) {
        self.calls.lock().failed_reads.push(partition);
    }

    fn halt(&self, partition: PartitionId, reason: String) {
        panic!("partition {partition} was halted: {reason}");
    }

    fn committed(&self) -> Vec<(PartitionId, Position)> {
        Vec::new()
    }

    fn wants_to_rejoin(&self) -> bool {
        self.calls.lock().rejoin
    }
}
