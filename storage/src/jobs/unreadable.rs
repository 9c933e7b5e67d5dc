//! Rows of jobs that cannot be read: damaged, or of a kind that only a newer release knows. Every worker sees all rows
//! every second, so each is warned about once.

use std::collections::HashSet;
use std::sync::{LazyLock, Mutex, PoisonError};

use schemas::job::{Job, JobId};
use uuid::Uuid;

/// More are not kept in mind, however many there ever were; they are warned about again then.
const KEPT: usize = 10_000;

static WARNED_OF: LazyLock<Mutex<Seen>> = LazyLock::new(Mutex::default);

/// The job that a row holds, if it can be read.
pub(super) fn readable(id: Uuid, text: &str) -> Option<Job> {
    let job = Job::from_json(text);
    if job.is_none() && WARNED_OF.lock().unwrap_or_else(PoisonError::into_inner).is_new(JobId(id)) {
        tracing::warn!(job = %id, "a job that cannot be read is passed over: it is damaged, or of a newer release");
    }
    job
}

/// Ids that were seen before.
#[derive(Debug, Default)]
struct Seen(HashSet<JobId>);

impl Seen {
    fn is_new(&mut self, id: JobId) -> bool {
        if self.0.len() >= KEPT && !self.0.contains(&id) {
            self.0.clear();
        }
        self.0.insert(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_new_once_and_they_take_a_bounded_room() {
        let (mut seen, id) = (Seen::default(), |number| JobId(Uuid::from_u128(number)));
        assert!(seen.is_new(id(1)) && seen.is_new(id(2)));
        assert!(!seen.is_new(id(1)) && !seen.is_new(id(2)));
        for number in 0..2 * KEPT as u128 {
            seen.is_new(id(number));
            assert!(!seen.is_new(id(number)) && seen.0.len() <= KEPT);
        }
    }

    #[test]
    fn what_is_no_job_is_left_out() {
        assert_eq!(readable(Uuid::from_u128(1), "{}"), None);
    }
}
