//! What a worker sees of all jobs, and which of them nobody is at any more.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use schemas::job::{Job, JobId, JobName, JobState};
use storage::jobs::JobStore;
use storage::store::StoreError;
use tokio::time::{Instant, sleep};

use super::metrics::JobMetrics;
use super::worker::{LEASE, LOOK_INTERVAL, NowMs};

/// Who has not looked for so long has not seen that nothing changed.
const BLIND: Duration = Duration::from_secs(4);

/// All jobs, as one worker sees them.
pub(super) struct Board {
    jobs: Arc<dyn JobStore>,
    worker: JobName,
    metrics: JobMetrics,
    now_ms: NowMs,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    /// When it was looked last.
    at: Option<Instant>,
    /// Of each job that runs, its revision, and since when it is known.
    running: HashMap<JobId, (u64, Instant)>,
}

impl Board {
    pub fn new(
        jobs: Arc<dyn JobStore>,
        worker: JobName,
        metrics: JobMetrics,
        now_ms: NowMs,
    ) -> Self {
        Self { jobs, worker, metrics, now_ms, seen: Mutex::default() }
    }

    /// Looks at all jobs.
    pub async fn look(&self) -> Result<Vec<Job>, StoreError> {
        let read = self.jobs.job_rows().await;
        match &read {
            Ok(rows) => {
                self.metrics.set_jobs(rows, (self.now_ms)());
                self.seen().note(&rows.jobs, Instant::now());
            }
            Err(_) => self.metrics.forget_jobs(),
        }
        Ok(read?.jobs)
    }

    /// Looks from time to time, for as long as it is awaited.
    pub async fn keep_looking(&self) -> std::convert::Infallible {
        loop {
            sleep(LOOK_INTERVAL).await;
            // Whoever runs a job says in the log that the store is away.
            let _ = self.look().await;
        }
    }

    /// Whether this worker could begin a job: it waits and is due, or nobody is at it any more.
    pub fn is_ready(&self, job: &Job, now_ms: u64) -> bool {
        match &job.state {
            JobState::Queued { not_before_ms, .. } => *not_before_ms <= now_ms,
            JobState::Running { attempt, .. } => {
                attempt.worker != self.worker && self.seen().is_abandoned(job)
            }
            _ => false,
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    fn note(&mut self, jobs: &[Job], now: Instant) {
        if self.at.is_some_and(|at| now - at > BLIND) {
            self.running.clear();
        }
        self.at = Some(now);
        let running = jobs.iter().filter(|job| job.running().is_some());
        let known = |job: &Job| self.running.get(&job.id).copied();
        let noted = running.map(|job| {
            // Of two looks the later may see the older.
            let unchanged = known(job).filter(|(revision, _)| *revision >= job.revision);
            (job.id, unchanged.unwrap_or((job.revision, now)))
        });
        self.running = noted.collect();
    }

    fn is_abandoned(&self, job: &Job) -> bool {
        let known = self.running.get(&job.id).zip(self.at);
        known.is_some_and(|((revision, since), at)| {
            *revision == job.revision && at - *since >= LEASE
        })
    }
}

#[cfg(test)]
mod tests {
    use schemas::job::{JobKind, NewJob, Priority, claim, submit, tell};

    use super::*;

    fn running() -> Job {
        let id = JobId::new(1, uuid::Uuid::from_u128(7));
        let (kind, priority) = (JobKind::Audit, Priority::Normal);
        let job = submit(NewJob { id, kind, priority, asked_by: "me".into() }, &[], 1).unwrap();
        claim(&job, &"one".into(), 2).unwrap()
    }

    /// Whether nobody is at a job any more after looks at these seconds, in the last of which it is as given last.
    fn abandoned(looks: &[(u64, &Job)]) -> bool {
        let (mut seen, began) = (Seen::default(), Instant::now());
        for (second, job) in looks {
            seen.note(std::slice::from_ref(job), began + Duration::from_secs(*second));
        }
        seen.is_abandoned(looks.last().unwrap().1)
    }

    #[test]
    fn a_job_whose_row_stands_still_for_the_lease_is_abandoned_and_one_that_is_told_of_is_not() {
        let job = running();
        let told = tell(&job, job.running().unwrap(), job.progress.clone(), 3).unwrap();
        let still: Vec<_> = (0..=10).map(|second| (second, &job)).collect();
        assert!(abandoned(&still));
        assert!(!abandoned(&still[..10]));
        let mut beating = still.clone();
        beating[5].1 = &told;
        assert!(!abandoned(&beating[..6]));
        // The last look has seen an older row than one before.
        assert!(!abandoned(&beating));
    }

    #[test]
    fn who_has_not_looked_has_not_seen_that_nothing_changed() {
        let job = running();
        assert!(!abandoned(&[(0, &job), (1, &job), (12, &job)]));
        assert!(!abandoned(&[(0, &job), (12, &job), (14, &job), (17, &job), (20, &job)]));
        let looks: Vec<_> = [0, 12, 14, 17, 20, 22].map(|second| (second, &job)).to_vec();
        assert!(abandoned(&looks));
    }
}
