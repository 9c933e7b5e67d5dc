//! A partition handler that keeps what it is told.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use schemas::{Offset, PartitionId, Position};
use storage::log::{LogBounds, PartitionHandler, RecordBatch, Start};

/// A record as it was delivered: offset, key, value.
pub type Read = (Offset, Vec<u8>, Vec<u8>);

type StartOf = dyn Fn(PartitionId) -> Start + Send + Sync;
type HasRoom = dyn FnMut(u64, &RecordBatch) -> bool + Send;

pub struct Owner {
    start_of: Box<StartOf>,
    has_room: Mutex<Box<HasRoom>>,
    told: Mutex<Told>,
}

#[derive(Default)]
struct Told {
    owned: BTreeMap<PartitionId, LogBounds>,
    lost_any: bool,
    read: BTreeMap<PartitionId, Vec<Read>>,
    offers: u64,
    batches: u64,
    highs: BTreeMap<PartitionId, Position>,
    rejoin: bool,
}

impl Owner {
    pub fn new(start_of: impl Fn(PartitionId) -> Start + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            start_of: Box::new(start_of),
            has_room: Mutex::new(Box::new(|_, _| true)),
            told: Mutex::default(),
        })
    }

    /// Starts every partition at the log's start.
    pub fn from_start() -> Arc<Self> {
        Self::new(|_| Start::At(Position::START))
    }

    /// Decides from now on, for each offer, by their number so far and the batch.
    pub fn has_room(&self, has_room: impl FnMut(u64, &RecordBatch) -> bool + Send + 'static) {
        *self.has_room.lock().unwrap() = Box::new(has_room);
    }

    pub fn rejoin(&self) {
        self.told.lock().unwrap().rejoin = true;
    }

    pub fn owns(&self) -> usize {
        self.told.lock().unwrap().owned.len()
    }

    /// What the log said of a partition when it was assigned; `None` while it is not ours.
    pub fn bounds(&self, partition: u32) -> Option<LogBounds> {
        self.told.lock().unwrap().owned.get(&PartitionId(partition)).copied()
    }

    pub fn has_lost_any(&self) -> bool {
        self.told.lock().unwrap().lost_any
    }

    pub fn read(&self, partition: u32) -> Vec<Read> {
        self.told.lock().unwrap().read.get(&PartitionId(partition)).cloned().unwrap_or_default()
    }

    pub fn offers(&self) -> u64 {
        self.told.lock().unwrap().offers
    }

    pub fn batches(&self) -> u64 {
        self.told.lock().unwrap().batches
    }

    pub fn high(&self, partition: u32) -> Option<Position> {
        self.told.lock().unwrap().highs.get(&PartitionId(partition)).copied()
    }
}

impl PartitionHandler for Owner {
    fn assigned(&self, partitions: &[(PartitionId, LogBounds)]) -> Vec<(PartitionId, Start)> {
        self.told.lock().unwrap().owned.extend(partitions.iter().copied());
        partitions.iter().map(|(id, _)| (*id, (self.start_of)(*id))).collect()
    }

    fn revoked(&self, partitions: &[PartitionId], lost: bool) {
        let mut told = self.told.lock().unwrap();
        told.owned.retain(|owned, _| !partitions.contains(owned));
        told.lost_any |= lost;
    }

    fn deliver(&self, batch: RecordBatch, _patience: Duration) -> Result<(), RecordBatch> {
        let mut told = self.told.lock().unwrap();
        told.offers += 1;
        if !(self.has_room.lock().unwrap())(told.offers, &batch) {
            return Err(batch);
        }
        told.batches += 1;
        let read = told.read.entry(batch.partition()).or_default();
        read.extend(batch.iter().map(|r| (r.offset, r.key.to_vec(), r.value.to_vec())));
        Ok(())
    }

    fn high_watermark(&self, partition: PartitionId, high: Position) {
        self.told.lock().unwrap().highs.insert(partition, high);
    }

    fn halt(&self, partition: PartitionId, reason: String) {
        panic!("nothing is wrong with partition {partition}: {reason}");
    }

    fn committed(&self) -> Vec<(PartitionId, Position)> {
        Vec::new()
    }

    fn wants_to_rejoin(&self) -> bool {
        self.told.lock().unwrap().rejoin
    }
}
