//! The coordinator's handle of one running owner: its queue, its positions, and the request to stop. What the owner
//! does with its records is the `partition` module's.

use std::sync::Arc;

use storage::log::RecordBatch;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::starts::Reading;
use crate::partition::PartitionProgress;

/// Maximum number of batches queued for an owner: with the source's batch size, some ten thousand records.
const MAX_QUEUED_BATCHES: usize = 16;

pub(super) struct OwnerHandle {
    pub progress: Arc<PartitionProgress>,
    /// Lets the owner exit after a final commit.
    pub stop: CancellationToken,
    pub reading: Reading,
    records: mpsc::Sender<RecordBatch>,
}

impl OwnerHandle {
    /// Creates the handle and the queue of an owner.
    pub fn new(
        progress: Arc<PartitionProgress>,
        stop: CancellationToken,
    ) -> (Self, mpsc::Receiver<RecordBatch>) {
        let (records, inbox) = mpsc::channel(MAX_QUEUED_BATCHES);
        (Self { progress, stop, reading: Reading::default(), records }, inbox)
    }

    /// The owner's queue, for records that are not the source's.
    pub fn records(&self) -> mpsc::Sender<RecordBatch> {
        self.records.clone()
    }

    /// The owner's queue, once the source reads from the owner's start position on.
    pub fn queue(&self) -> Option<mpsc::Sender<RecordBatch>> {
        self.reading.has_started().then(|| self.records.clone())
    }
}
