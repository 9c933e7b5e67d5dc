//! A partition's positions, as the rest of the process reads them: metrics, lag and shadow generations. The owner
//! itself decides by its checkpoint.

use std::sync::atomic::{AtomicU64, Ordering};

use schemas::Position;
use tokio::sync::watch;

/// The delivered and the committed position, and the high watermark of one partition.
#[derive(Debug, Default)]
pub struct PartitionProgress {
    high: AtomicU64,
    delivered: AtomicU64,
    committed: watch::Sender<Position>,
}

impl PartitionProgress {
    /// The log's last known high watermark.
    pub fn high(&self) -> Position {
        Position(self.high.load(Ordering::Relaxed))
    }

    /// The position up to which the source has delivered records to the owner.
    pub fn delivered(&self) -> Position {
        Position(self.delivered.load(Ordering::Relaxed))
    }

    /// Moves the delivered position: after a delivery, or to where an owner begins.
    pub(crate) fn set_delivered(&self, delivered: Position) {
        self.delivered.store(delivered.0, Ordering::Relaxed);
    }

    /// The committed position.
    pub fn committed(&self) -> Position {
        *self.committed.borrow()
    }

    /// Waits until every record below `position` is committed.
    pub async fn reached(&self, position: Position) {
        // Cannot fail: `self` holds the sender.
        let _ = self.committed.subscribe().wait_for(|committed| *committed >= position).await;
    }

    /// Raises the log's high watermark; it never goes back.
    pub fn set_high(&self, high: Position) {
        self.high.fetch_max(high.0, Ordering::Relaxed);
    }

    pub(crate) fn set_committed(&self, committed: Position) {
        self.committed.send_replace(committed);
        self.set_high(committed);
    }

    pub(crate) fn lag(&self) -> u64 {
        self.high().0.saturating_sub(self.committed().0)
    }
}
