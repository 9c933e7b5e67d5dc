//! Bounds and counts the reads that wait for a submission.

use prometheus::IntGauge;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::metrics::ApiMetrics;

/// Limits how many reads may wait at once.
#[derive(Debug)]
pub struct WaiterLimit {
    permits: Semaphore,
    waiting: IntGauge,
}

/// Permission to wait; released when dropped.
#[derive(Debug)]
pub struct WaiterPermit<'a> {
    waiting: &'a IntGauge,
    _permit: SemaphorePermit<'a>,
}

impl WaiterLimit {
    /// Creates a limit of `max` waiting reads.
    pub fn new(max: usize, metrics: &ApiMetrics) -> Self {
        let permits = Semaphore::new(max.min(Semaphore::MAX_PERMITS));
        Self { permits, waiting: metrics.waiting.clone() }
    }

    /// Acquires a permit; `None` when all are taken.
    pub fn try_acquire(&self) -> Option<WaiterPermit<'_>> {
        let permit = self.permits.try_acquire().ok()?;
        self.waiting.inc();
        Some(WaiterPermit { waiting: &self.waiting, _permit: permit })
    }
}

impl Drop for WaiterPermit<'_> {
    fn drop(&mut self) {
        self.waiting.dec();
    }
}
