//! How far a partition has come, for everyone but its owner: what is shown and told to the group's lag tools. What the
//! owner goes by is its checkpoint.

use std::sync::atomic::{AtomicU64, Ordering};

use schemas::Position;
use tokio::sync::watch;

/// How far a partition has come.
#[derive(Debug, Default)]
pub struct Progress {
    high: AtomicU64,
    committed: watch::Sender<Position>,
}

impl Progress {
    /// The log's high watermark, as last heard.
    pub fn high(&self) -> Position {
        Position(self.high.load(Ordering::Relaxed))
    }

    /// The committed position.
    pub fn committed(&self) -> Position {
        *self.committed.borrow()
    }

    /// Waits until everything below `position` is committed.
    pub(crate) async fn reached(&self, position: Position) {
        // Its sender is here.
        let _ = self.committed.subscribe().wait_for(|committed| *committed >= position).await;
    }

    /// Takes the log's high watermark. It never goes back.
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
