//! Takes the lock of a budget's annulments for a job: one job at a time annuls or restores people of a budget.
//!
//! The holder is in the operators' list (`AnnulmentRegister`), which is changed by compare-and-set. A holder whose job
//! is no longer running, or whose worker has stopped renewing its lease, is replaced: a later attempt of its job takes
//! the lock anew. So a worker may wait here for a job of another worker, and never for one that only it could run.

use std::time::Duration;

use schemas::{AnnulmentChange, AnnulmentLock, AnnulmentRegister, BudgetId};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::super::LEASE_DURATION;
use super::{JobExecutorDeps, JobFailure, JobLease};

const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// The lock of a budget, and the annulments at the time it was taken.
pub(super) struct LockedRegister {
    lock: AnnulmentLock,
    /// The annulments, which other jobs do not change until the lock is given back.
    pub register: AnnulmentRegister,
}

/// Waits for the lock, and takes it.
///
/// # Errors
/// When the list of annulments or the jobs are unavailable.
pub(super) async fn lock(
    deps: &JobExecutorDeps,
    job: &JobLease,
    budget: &BudgetId,
) -> Result<LockedRegister, JobFailure> {
    let holder = AnnulmentLock { job: job.id(), token: Uuid::new_v4() };
    let (mut replaces, mut watch) = (None, HolderWatch::default());
    loop {
        let change = AnnulmentChange::Lock { holder, replaces };
        let register = deps.annulments.change_annulments(budget, &change).await?;
        match register.lock() {
            Some(other) if other != holder => {
                replaces = wait_for(deps, job, budget, other, &mut watch).await?;
            }
            _ => return Ok(LockedRegister { lock: holder, register }),
        }
    }
}

impl LockedRegister {
    /// Gives the lock back. A failure is only logged: the next job replaces a holder whose job has ended.
    pub async fn unlock(self, deps: &JobExecutorDeps, budget: &BudgetId) {
        let change = AnnulmentChange::Unlock(self.lock);
        if let Err(error) = deps.annulments.change_annulments(budget, &change).await {
            tracing::warn!(%budget, %error, "failed to unlock the budget's annulments");
        }
    }
}

/// Waits until the holder seems to have given the lock back, or does not work any more.
///
/// Returns the holder if it does not work any more: then it is replaced. The list that is read here may be older than the
/// one in which the lock was found, so a lock that seems to be given back may be held still.
async fn wait_for(
    deps: &JobExecutorDeps,
    job: &JobLease,
    budget: &BudgetId,
    holder: AnnulmentLock,
    watch: &mut HolderWatch,
) -> Result<Option<AnnulmentLock>, JobFailure> {
    loop {
        // An earlier attempt of this job has ended: this one has the lease.
        let other = if holder.job == job.id() { None } else { job.other_job(holder.job).await? };
        let running = other.filter(|other| other.running().is_some());
        let Some(revision) = running.map(|running| running.revision) else {
            return Ok(Some(holder));
        };
        if watch.has_stopped(holder, revision, Instant::now()) {
            return Ok(Some(holder));
        }
        job.report_progress(0, 0, format!("waits for job {} of the same budget", holder.job));
        sleep(POLL_INTERVAL).await;
        let stored = deps.annulments.annulments(budget).await;
        let stored = stored.map_err(|error| JobFailure::Transient(error.to_string()))?;
        if stored.register().is_some_and(|register| register.lock() != Some(holder)) {
            return Ok(None);
        }
    }
}

/// Since when the job of a lock's holder has not changed. Pure.
#[derive(Default)]
struct HolderWatch(Option<(AnnulmentLock, u64, Instant)>);

impl HolderWatch {
    /// Notes the revision of the holder's job. Returns whether it has not changed for longer than a lease.
    fn has_stopped(&mut self, holder: AnnulmentLock, revision: u64, now: Instant) -> bool {
        match self.0 {
            Some((watched, seen, since)) if watched == holder && seen == revision => {
                now.duration_since(since) > LEASE_DURATION
            }
            _ => {
                self.0 = Some((holder, revision, now));
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use schemas::job::JobId;

    use super::*;

    #[test]
    fn a_holder_has_stopped_when_its_job_has_not_changed_for_a_lease() {
        let holder =
            |token| AnnulmentLock { job: JobId(Uuid::nil()), token: Uuid::from_u128(token) };
        let (mut watch, start) = (HolderWatch::default(), Instant::now());
        let mut at = |leases: f32, token, revision| {
            let since = LEASE_DURATION.mul_f32(leases);
            watch.has_stopped(holder(token), revision, start + since + Duration::from_millis(1))
        };
        assert!(!at(0.0, 1, 7));
        assert!(!at(0.9, 1, 7));
        assert!(at(1.1, 1, 7));
        assert!(!at(1.2, 1, 8), "its job has renewed the lease");
        assert!(!at(2.1, 1, 8));
        assert!(!at(3.0, 2, 8), "another holder");
        assert!(at(4.1, 2, 8));
    }
}
