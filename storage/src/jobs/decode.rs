//! Decodes rows of jobs. Workers read all rows again and again, so each unreadable row is logged only once.

use std::collections::HashSet;
use std::sync::LazyLock;

use parking_lot::Mutex;
use schemas::job::{Job, JobId};
use uuid::Uuid;

/// Maximum remembered ids. At more, they are forgotten and logged again.
const MAX_REMEMBERED_IDS: usize = 10_000;

static LOGGED: LazyLock<Mutex<RememberedIds>> = LazyLock::new(Mutex::default);

/// Decodes a row; `None` if it is unreadable.
pub(super) fn decode(id: Uuid, text: &str) -> Option<Job> {
    let job = Job::from_json(text);
    if job.is_none() && LOGGED.lock().insert(JobId(id)) {
        tracing::warn!(job = %id, "ignored an unreadable job: it is damaged, or of a newer release");
    }
    job
}

#[derive(Debug, Default)]
struct RememberedIds(HashSet<JobId>);

impl RememberedIds {
    /// Remembers an id, and returns whether it is new.
    fn insert(&mut self, id: JobId) -> bool {
        if self.0.len() >= MAX_REMEMBERED_IDS && !self.0.contains(&id) {
            self.0.clear();
        }
        self.0.insert(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_new_once_and_their_number_is_bounded() {
        let (mut ids, id) = (RememberedIds::default(), |number| JobId(Uuid::from_u128(number)));
        assert!(ids.insert(id(1)) && ids.insert(id(2)));
        assert!(!ids.insert(id(1)) && !ids.insert(id(2)));
        for number in 0..2 * MAX_REMEMBERED_IDS as u128 {
            ids.insert(id(number));
            assert!(!ids.insert(id(number)) && ids.0.len() <= MAX_REMEMBERED_IDS);
        }
    }

    #[test]
    fn a_row_that_is_not_a_job_is_unreadable() {
        assert_eq!(decode(Uuid::from_u128(1), "{}"), None);
    }
}
