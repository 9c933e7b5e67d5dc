//! Separate limits for records waiting for the log, for a freeze and for a confirmation, so that one backlog does not
//! block the others.

use schemas::Budget;

use super::fences::Fences;
use crate::in_flight_limit::{InFlightLimit, InFlightPermit};
use crate::metrics::IngestMetrics;
use crate::pending::PendingSubmission;

/// Limits the records of all appends. The control topic may take seconds, the log does not.
pub(super) struct AppendLimits {
    /// Records that wait for the log.
    in_flight: InFlightLimit,
    /// Records that wait for the control topic before their append: the first ones of a budget.
    unfrozen: InFlightLimit,
    /// Records that wait for the control topic after their append: those of budgets with a closing time.
    unconfirmed: InFlightLimit,
}

/// The permits of the records of one append.
pub(super) struct AppendPermits {
    in_flight: InFlightPermit,
    unfrozen: Option<InFlightPermit>,
    unconfirmed: Option<InFlightPermit>,
}

impl AppendLimits {
    /// Creates limits of `max_records` each.
    pub fn new(max_records: usize, metrics: &IngestMetrics) -> Self {
        let limit = |gauge| InFlightLimit::new(max_records, gauge);
        Self {
            in_flight: limit(metrics.records_in_flight()),
            unfrozen: limit(metrics.records_unfrozen()),
            unconfirmed: limit(metrics.records_unconfirmed()),
        }
    }

    /// Takes the permits of an append without waiting. `None` when too few are free.
    pub fn acquire(
        &self,
        checked: &Budget,
        fences: &Fences,
        submissions: &[PendingSubmission],
    ) -> Option<AppendPermits> {
        let unfrozen = if checked.frozen { 0 } else { submissions.len() };
        let unfrozen = acquire_any(&self.unfrozen, unfrozen)?;
        Some(AppendPermits { unfrozen, ..self.acquire_frozen(fences, submissions)? })
    }

    /// Takes the permits of an append whose definition is in force. `None` when too few are free.
    pub fn acquire_frozen(
        &self,
        fences: &Fences,
        submissions: &[PendingSubmission],
    ) -> Option<AppendPermits> {
        Some(AppendPermits {
            unfrozen: None,
            unconfirmed: acquire_any(&self.unconfirmed, fences.unconfirmed(submissions))?,
            in_flight: self.in_flight.try_acquire(submissions.len())?,
        })
    }
}

impl AppendPermits {
    /// Returns what is held while records wait for the freeze. The permits of the log and of the confirmation are released.
    pub fn into_freeze_permit(self) -> Option<InFlightPermit> {
        self.unfrozen
    }

    /// Returns what is held until the outcome is known. If the records wait for a confirmation, which may take seconds, the
    /// permit of the log is released.
    pub fn into_confirmation_permit(self) -> InFlightPermit {
        self.unconfirmed.unwrap_or(self.in_flight)
    }
}

/// Takes a permit for each record, if there are any. `None` when too few are free.
fn acquire_any(limit: &InFlightLimit, records: usize) -> Option<Option<InFlightPermit>> {
    match records {
        0 => Some(None),
        records => limit.try_acquire(records).map(Some),
    }
}
