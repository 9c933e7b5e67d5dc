//! How far each partition has been written: the writer moves it, sources wait for it.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use schemas::Position;

/// Where each partition's next record will be, in the partitions' order.
pub(super) struct Tail {
    ends: Mutex<Vec<Position>>,
    moved: Condvar,
}

impl Tail {
    pub fn new(ends: Vec<Position>) -> Self {
        Self { ends: Mutex::new(ends), moved: Condvar::new() }
    }

    pub fn move_to(&self, ends: Vec<Position>) {
        *self.lock() = ends;
        self.moved.notify_all();
    }

    pub fn ends(&self) -> Vec<Position> {
        self.lock().clone()
    }

    /// Waits until the tail is no longer at `seen`, at most for `patience`.
    pub fn wait_beyond(&self, seen: &[Position], patience: Duration) {
        let waited = self.moved.wait_timeout_while(self.lock(), patience, |ends| ends == seen);
        drop(waited);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Position>> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
