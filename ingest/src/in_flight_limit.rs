//! Limits the records that wait for the log at the same time.

use std::sync::Arc;

use prometheus::IntGauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Permits for records on their way into the log. The gauge shows the permits in use.
#[derive(Debug, Clone)]
pub(crate) struct InFlightLimit {
    permits: Arc<Semaphore>,
    in_flight: IntGauge,
}

impl InFlightLimit {
    pub fn new(max_records: usize, in_flight: IntGauge) -> Self {
        let permits = Arc::new(Semaphore::new(max_records.min(Semaphore::MAX_PERMITS)));
        Self { permits, in_flight }
    }

    /// Takes one permit for each record without waiting. `None` when too few are free.
    pub fn try_acquire(&self, records: usize) -> Option<InFlightPermit> {
        let permits = Arc::clone(&self.permits);
        let permit = permits.try_acquire_many_owned(u32::try_from(records).ok()?).ok()?;
        let records = i64::try_from(records).ok()?;
        self.in_flight.add(records);
        Some(InFlightPermit { _permit: permit, records, in_flight: self.in_flight.clone() })
    }
}

/// Permits that are released on drop.
#[derive(Debug)]
pub(crate) struct InFlightPermit {
    _permit: OwnedSemaphorePermit,
    records: i64,
    in_flight: IntGauge,
}

impl Drop for InFlightPermit {
    fn drop(&mut self) {
        self.in_flight.sub(self.records);
    }
}
