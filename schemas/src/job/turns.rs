//! Which job a worker does next: the most urgent, the oldest first. Now and then one of those that are passed over has its
//! turn, so that nothing waits for ever; but never after a job that was less urgent than what waits: between a critical
//! job and its turn there is at most one that is less urgent.

use super::{Job, Priority};

/// So many jobs in a row may pass over one that is less urgent.
pub const TURNS_IN_A_ROW: u32 = 4;

/// What a worker has to remember of the jobs that it did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Turns {
    /// How many in a row have passed over one that is less urgent.
    in_a_row: u32,
    /// How urgent the last one was.
    last: Option<Priority>,
}

impl Turns {
    /// Of the jobs that could be begun now, the one whose turn it is.
    pub fn next<'j>(&self, ready: &[&'j Job]) -> Option<&'j Job> {
        let most_urgent = ready.iter().map(|job| job.priority).max()?;
        // Also what is the most urgent itself by now: it was passed over, too.
        let passed_over = || oldest(ready.iter().filter(|job| Some(job.priority) < self.last));
        let is_their_turn = self.in_a_row >= TURNS_IN_A_ROW && self.last >= Some(most_urgent);
        is_their_turn
            .then(passed_over)
            .flatten()
            .or_else(|| oldest(ready.iter().filter(|job| job.priority == most_urgent)))
    }

    /// One of those that could be begun is begun.
    pub fn took(&mut self, job: &Job, ready: &[&Job]) {
        let any = |passed: fn(Priority, Priority) -> bool| {
            ready.iter().any(|other| passed(other.priority, job.priority))
        };
        let is_their_turn = any(|other, taken| other > taken);
        let passes_over = any(|other, taken| other < taken);
        self.in_a_row = if passes_over && !is_their_turn { self.in_a_row + 1 } else { 0 };
        self.last = Some(job.priority);
    }
}

fn oldest<'i, 'j: 'i>(jobs: impl Iterator<Item = &'i &'j Job>) -> Option<&'j Job> {
    jobs.copied().min_by_key(|job| (job.created_at_ms, job.id))
}
