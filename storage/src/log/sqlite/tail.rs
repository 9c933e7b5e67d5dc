//! The end of each partition: the writer advances it, sources wait for it.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

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
        *self.lock() = ends;
        self.advanced.notify_all();
    }

    pub fn ends(&self) -> Vec<Position> {
        self.lock().clone()
    }

    /// Waits until the ends differ from `seen`, at most for `timeout`.
    pub fn wait_for_change(&self, seen: &[Position], timeout: Duration) {
        let waited = self.advanced.wait_timeout_while(self.lock(), timeout, |ends| ends == seen);
        drop(waited);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Position>> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
