//! Those who wait for a submission: counted, and bounded.

use prometheus::IntGauge;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::metrics::ApiMetrics;

/// Counts those who wait, and bounds them.
#[derive(Debug)]
pub struct Waiters {
    places: Semaphore,
    waiting: IntGauge,
}

/// A place among those who wait.
#[derive(Debug)]
pub struct Waiting<'a> {
    waiting: &'a IntGauge,
    _place: SemaphorePermit<'a>,
}

impl Waiters {
    /// Room for so many.
    pub fn new(max: usize, metrics: &ApiMetrics) -> Self {
        let places = Semaphore::new(max.min(Semaphore::MAX_PERMITS));
        Self { places, waiting: metrics.waiting.clone() }
    }

    /// Takes a place; `None` when all are taken.
    pub fn enter(&self) -> Option<Waiting<'_>> {
        let place = self.places.try_acquire().ok()?;
        self.waiting.inc();
        Some(Waiting { waiting: &self.waiting, _place: place })
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.waiting.dec();
    }
}
