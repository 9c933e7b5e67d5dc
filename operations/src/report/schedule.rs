//! Schedules the report of each budget that has closed, once everything that was accepted in time is counted.
//!
//! The process that has partition 0 submits the job. The job's id is derived from the budget and the revision of its
//! closing, so that another process, or this one after a restart, submits no second one.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use runtime::clock::now_ms;
use schemas::job::{JobId, JobKind, NewJob, Priority};
use schemas::{
    Budget, ClosingFence, ClosingState, CombinedTotals, GenerationRegistry, PartitionId,
};
use storage::control::BudgetDefinitions;
use storage::jobs::{JobStore, submit};
use storage::store::{Store, StoreError};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// How often closed budgets are looked at.
const TICK_INTERVAL: Duration = Duration::from_secs(10);
/// Time after a closing in which its report is scheduled. A job that ended longer ago may be deleted.
const MAX_AGE: SignedDuration = SignedDuration::from_hours(24);
/// The partition whose process schedules reports.
const SCHEDULING_PARTITION: PartitionId = PartitionId(0);
/// Who submits the jobs.
const REQUESTED_BY: &str = "closing";

/// Dependencies of the scheduler.
pub struct ReportScheduleDeps {
    /// Budget definitions, which say what is closed.
    pub definitions: Arc<dyn BudgetDefinitions>,
    /// The committed totals.
    pub store: Arc<dyn Store>,
    /// Background jobs.
    pub jobs: Arc<dyn JobStore>,
    /// The generation registry.
    pub registry: watch::Receiver<GenerationRegistry>,
    /// The partitions of the active generation that are assigned to this process.
    pub assigned: watch::Receiver<BTreeSet<PartitionId>>,
}

/// Schedules reports.
pub struct ReportScheduler {
    deps: ReportScheduleDeps,
    /// Jobs that are known to have been submitted.
    submitted: BTreeSet<JobId>,
}

impl ReportScheduler {
    /// Creates a scheduler.
    pub fn new(deps: ReportScheduleDeps) -> Self {
        Self { deps, submitted: BTreeSet::new() }
    }

    /// Runs until `stop` is cancelled.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut ticks = interval(TICK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            match stop.run_until_cancelled(self.tick(Timestamp::now())).await {
                None => return,
                Some(Ok(())) => {}
                Some(Err(error)) => {
                    tracing::warn!(%error, "failed to schedule reports, retrying");
                }
            }
        }
    }

    async fn tick(&mut self, now: Timestamp) -> Result<(), StoreError> {
        if !self.deps.assigned.borrow().contains(&SCHEDULING_PARTITION) {
            return Ok(());
        }
        let catalog = self.deps.definitions.catalog();
        let closed = catalog.iter().filter_map(|budget| Some((budget, due_job(budget, now)?)));
        for (budget, id) in closed.collect::<Vec<_>>() {
            if self.submitted.contains(&id) {
                continue;
            }
            let is_submitted = self.deps.jobs.job(id).await?.is_some();
            if is_submitted || (self.is_final(budget).await? && self.submit(id, budget).await) {
                self.submitted.insert(id);
            }
        }
        Ok(())
    }

    async fn is_final(&self, budget: &Budget) -> Result<bool, StoreError> {
        let registry = self.deps.registry.borrow().clone();
        let (generation, partitions) = (registry.active.generation, registry.active.log.partitions);
        let budgets = std::slice::from_ref(&budget.id);
        let summaries = self.deps.store.summaries(generation, partitions, budgets).await?;
        let summary = summaries.into_iter().next().and_then(Result::ok).unwrap_or_default();
        let totals = CombinedTotals::merge(registry.term(), partitions, &summary);
        Ok(totals.is_ok_and(|totals| totals.is_final()))
    }

    /// Submits the job; returns whether it was.
    async fn submit(&self, id: JobId, budget: &Budget) -> bool {
        let kind = JobKind::Report { budget: budget.id.clone() };
        let requested_by = REQUESTED_BY.into();
        let new = NewJob { id, kind, priority: Priority::Low, requested_by };
        match submit(self.deps.jobs.as_ref(), new, now_ms()).await {
            Ok(_) => {
                tracing::info!(budget = %budget.id, job = %id, "report of a closed budget scheduled");
                true
            }
            Err(error) => {
                tracing::warn!(budget = %budget.id, %error, "failed to schedule a report, retrying");
                false
            }
        }
    }
}

/// Returns the id of the report's job if the budget has closed recently. Pure.
fn due_job(budget: &Budget, now: Timestamp) -> Option<JobId> {
    let ClosingFence { revision, state: ClosingState::Closed } = budget.closing? else {
        return None;
    };
    let closed_for = now.duration_since(budget.closes_at?);
    let name = format!("report of {} at revision {revision}", budget.id);
    (closed_for <= MAX_AGE).then(|| JobId::from_name(REQUESTED_BY, &name))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use schemas::default_budgets;

    use super::*;

    fn closed(revision: u64, state: ClosingState) -> Budget {
        let mut budget = default_budgets().unwrap().remove(0);
        budget.closes_at = Some("2027-01-31T23:00:00Z".parse().unwrap());
        budget.closing = Some(ClosingFence { revision, state });
        budget
    }

    fn job(budget: &Budget, now: &str) -> Option<JobId> {
        due_job(budget, now.parse().unwrap())
    }

    #[test]
    fn each_closing_has_one_report_within_a_day() {
        let first = closed(3, ClosingState::Closed);
        let id = job(&first, "2027-01-31T23:00:01Z");
        assert!(id.is_some());
        assert_eq!(job(&first, "2027-02-01T22:00:00Z"), id);
        assert_eq!(job(&first, "2027-02-01T23:00:01Z"), None);
        let second = job(&closed(7, ClosingState::Closed), "2027-01-31T23:00:01Z");
        assert!(second.is_some() && second != id);
    }

    #[test]
    fn an_open_budget_has_no_report() {
        for state in [ClosingState::Reopening, ClosingState::Reopened] {
            assert_eq!(job(&closed(3, state), "2027-01-31T23:00:01Z"), None);
        }
        let open = default_budgets().unwrap().remove(0);
        assert_eq!(job(&open, "2027-01-31T23:00:01Z"), None);
    }
}
