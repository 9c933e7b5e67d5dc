//! The order in which a worker runs jobs: by priority, then by age, without starvation.
//!
//! After [`MAX_CONSECUTIVE_BYPASSES`] jobs have bypassed a less urgent one, the oldest of the bypassed jobs is picked,
//! but never directly after a job that was less urgent than the waiting ones: at most one less urgent job delays a
//! critical job.

use super::{Job, Priority};

/// Maximum jobs in a row that bypass a less urgent one.
pub const MAX_CONSECUTIVE_BYPASSES: u32 = 4;

/// Picks the next job for one worker.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FairQueue {
    /// Jobs in a row that bypassed a less urgent one.
    consecutive_bypasses: u32,
    /// Priority of the job that was started last.
    last: Option<Priority>,
}

impl FairQueue {
    /// Picks one of the jobs that are ready; `None` if there are none.
    pub fn pick<'j>(&self, ready: &[&'j Job]) -> Option<&'j Job> {
        let most_urgent = ready.iter().map(|job| job.priority).max()?;
        // Also jobs that are the most urgent by now: they were bypassed, too.
        let bypassed = || oldest(ready.iter().filter(|job| Some(job.priority) < self.last));
        let bypassed_first =
            self.consecutive_bypasses >= MAX_CONSECUTIVE_BYPASSES && self.last >= Some(most_urgent);
        bypassed_first
            .then(bypassed)
            .flatten()
            .or_else(|| oldest(ready.iter().filter(|job| job.priority == most_urgent)))
    }

    /// Records that one of the ready jobs was started.
    pub fn record_start(&mut self, job: &Job, ready: &[&Job]) {
        let any = |matches: fn(Priority, Priority) -> bool| {
            ready.iter().any(|other| matches(other.priority, job.priority))
        };
        let was_bypassed = any(|other, started| other > started);
        let bypasses = any(|other, started| other < started);
        let is_bypass = bypasses && !was_bypassed;
        self.consecutive_bypasses = if is_bypass { self.consecutive_bypasses + 1 } else { 0 };
        self.last = Some(job.priority);
    }
}

fn oldest<'i, 'j: 'i>(jobs: impl Iterator<Item = &'i &'j Job>) -> Option<&'j Job> {
    jobs.copied().min_by_key(|job| (job.created_at_ms, job.id))
}
