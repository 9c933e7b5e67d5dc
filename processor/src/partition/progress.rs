//! How far a partition has come, for everyone but its owner: what is shown and told to the group's lag tools. What the
//! owner goes by is its checkpoint.

use std::sync::atomic::{AtomicU64, Ordering};

use schemas::Position;

/// How far a partition has come.
#[derive(Debug, Default)]
pub struct Progress {
    high: AtomicU64,
    committed: AtomicU64,
}

impl Progress {
    /// The log's high watermark, as last heard.
    pub fn high(&self) -> Position {
        Position(self.high.load(Ordering::Relaxed))
    }

    /// The committed position.
    pub fn committed(&self) -> Position {
        Position(self.committed.load(Ordering::Relaxed))
    }

    /// Takes the log's high watermark. It never goes back.
    pub fn set_high(&self, high: Position) {
        self.high.fetch_max(high.0, Ordering::Relaxed);
    }

    pub(crate) fn set_committed(&self, committed: Position) {
        self.committed.store(committed.0, Ordering::Relaxed);
        self.set_high(committed);
    }

    pub(crate) fn lag(&self) -> u64 {
        self.high().0.saturating_sub(self.committed().0)
    }
}
