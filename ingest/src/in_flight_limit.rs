//! Limits the records that wait for the log at the same time. Under overload, batches are shed before single
//! submissions.

use std::sync::Arc;

use prometheus::IntGauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The part of all permits that batches leave to single submissions: a fourth.
const RESERVED_DIVISOR: usize = 4;

/// Permits for records on their way into the log. The gauge shows the permits in use.
#[derive(Debug, Clone)]
pub(crate) struct InFlightLimit {
    permits: Arc<Semaphore>,
    /// What batches may have of the permits.
    batch_permits: Arc<Semaphore>,
    in_flight: IntGauge,
}

impl InFlightLimit {
    pub fn new(max_records: usize, in_flight: IntGauge) -> Self {
        let max_records = max_records.min(Semaphore::MAX_PERMITS);
        let permits = Arc::new(Semaphore::new(max_records));
        let batch_permits = Arc::new(Semaphore::new(max_records - max_records / RESERVED_DIVISOR));
        Self { permits, batch_permits, in_flight }
    }

    /// Takes one permit for each record without waiting. `None` when too few are free, or are left to single
    /// submissions.
    pub fn try_acquire(&self, records: usize) -> Option<InFlightPermit> {
        let count = u32::try_from(records).ok()?;
        let of_batches = match count {
            0 | 1 => None,
            _ => Some(Arc::clone(&self.batch_permits).try_acquire_many_owned(count).ok()?),
        };
        let permit = Arc::clone(&self.permits).try_acquire_many_owned(count).ok()?;
        let records = i64::from(count);
        self.in_flight.add(records);
        let in_flight = self.in_flight.clone();
        Some(InFlightPermit { _permit: permit, _of_batches: of_batches, records, in_flight })
    }
}

/// Permits that are released on drop.
#[derive(Debug)]
pub(crate) struct InFlightPermit {
    _permit: OwnedSemaphorePermit,
    _of_batches: Option<OwnedSemaphorePermit>,
    records: i64,
    in_flight: IntGauge,
}

impl Drop for InFlightPermit {
    fn drop(&mut self) {
        self.in_flight.sub(self.records);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_leave_a_fourth_of_the_permits_to_single_submissions() {
        let gauge = IntGauge::new("in_flight", "Records.").unwrap();
        let limit = InFlightLimit::new(8, gauge.clone());
        let batches = [limit.try_acquire(3).unwrap(), limit.try_acquire(3).unwrap()];
        assert!(limit.try_acquire(2).is_none());
        let singles = [limit.try_acquire(1).unwrap(), limit.try_acquire(1).unwrap()];
        assert!(limit.try_acquire(1).is_none());
        assert_eq!(gauge.get(), 8);
        drop((batches, singles));
        assert_eq!(gauge.get(), 0);
        let singles: Vec<_> = (0..8).map(|_| limit.try_acquire(1).unwrap()).collect();
        assert!(limit.try_acquire(2).is_none(), "single submissions may take everything");
        drop(singles);
    }
}
