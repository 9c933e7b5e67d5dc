//! The end of each partition: the writer advances it, sources wait for it.

use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use schemas::Position;

/// Each partition's next position, in partition order.
pub(super) struct Tail {
    ends: Mutex<Vec<Position>>,
    advanced: Condvar,
}

impl Tail {
    pub fn new(ends: Vec<Position>) -> Self {
        Self { ends: Mutex::new(ends), advanced: Condvar::new() }
    }

    pub fn advance(&self, ends: Vec<Position>) {
        *self.ends.lock() = ends;
        self.advanced.notify_all();
    }

    pub fn ends(&self) -> Vec<Position> {
        self.ends.lock().clone()
    }

    /// Waits until the ends differ from `seen`, at most for `timeout`.
    pub fn wait_for_change(&self, seen: &[Position], timeout: Duration) {
        self.advanced.wait_while_for(&mut self.ends.lock(), |ends| ends == seen, timeout);
    }
}
