//! Scanning all jobs, and detecting running ones whose worker has died.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use schemas::job::{Job, JobId, JobName, JobState};
use storage::jobs::JobStore;
use storage::store::StoreError;
use tokio::time::{Instant, sleep};

use super::lease::{LEASE_DURATION, NowMs};
use super::metrics::JobMetrics;

/// Pause between two scans of all jobs.
pub(super) const SCAN_INTERVAL: Duration = Duration::from_secs(1);

/// After a longer gap between two scans, unchanged rows prove nothing.
const MAX_SCAN_GAP: Duration = Duration::from_secs(4);

/// Reads all jobs for one worker.
pub(super) struct JobScanner {
    jobs: Arc<dyn JobStore>,
    worker: JobName,
    metrics: JobMetrics,
    now_ms: NowMs,
    history: Mutex<ScanHistory>,
}

#[derive(Default)]
struct ScanHistory {
    /// Time of the latest scan.
    scanned_at: Option<Instant>,
    /// For each running job its revision, and since when that has been seen.
    running: HashMap<JobId, (u64, Instant)>,
}

impl JobScanner {
    pub fn new(
        jobs: Arc<dyn JobStore>,
        worker: JobName,
        metrics: JobMetrics,
        now_ms: NowMs,
    ) -> Self {
        Self { jobs, worker, metrics, now_ms, history: Mutex::default() }
    }

    /// Reads all jobs.
    pub async fn scan(&self) -> Result<Vec<Job>, StoreError> {
        let read = self.jobs.job_rows().await;
        match &read {
            Ok(rows) => {
                self.metrics.set_jobs(rows, (self.now_ms)());
                self.history().record(&rows.jobs, Instant::now());
            }
            Err(_) => self.metrics.forget_jobs(),
        }
        Ok(read?.jobs)
    }

    /// Scans periodically for as long as it is awaited.
    pub async fn keep_scanning(&self) -> std::convert::Infallible {
        loop {
            sleep(SCAN_INTERVAL).await;
            // The lease logs that the store is unavailable.
            let _ = self.scan().await;
        }
    }

    /// Whether this worker may claim a job: it is queued and due, or its lease has expired. A job that a newer release
    /// extended is left to that release.
    pub fn is_ready(&self, job: &Job, now_ms: u64) -> bool {
        if !job.is_understood() {
            return false;
        }
        match &job.state {
            JobState::Queued { not_before_ms, .. } => *not_before_ms <= now_ms,
            JobState::Running { attempt, .. } => {
                attempt.worker != self.worker && self.history().has_expired(job)
            }
            _ => false,
        }
    }

    fn history(&self) -> MutexGuard<'_, ScanHistory> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ScanHistory {
    fn record(&mut self, jobs: &[Job], now: Instant) {
        if self.scanned_at.is_some_and(|at| now - at > MAX_SCAN_GAP) {
            self.running.clear();
        }
        self.scanned_at = Some(now);
        let running = jobs.iter().filter(|job| job.running().is_some());
        let known = |job: &Job| self.running.get(&job.id).copied();
        let running = running.map(|job| {
            // A later scan may see an older revision.
            let unchanged = known(job).filter(|(revision, _)| *revision >= job.revision);
            (job.id, unchanged.unwrap_or((job.revision, now)))
        });
        self.running = running.collect();
    }

    fn has_expired(&self, job: &Job) -> bool {
        let known = self.running.get(&job.id).zip(self.scanned_at);
        known.is_some_and(|((revision, since), at)| {
            *revision == job.revision && at - *since >= LEASE_DURATION
        })
    }
}

#[cfg(test)]
mod tests {
    use schemas::job::{JobKind, NewJob, Priority, claim, report_progress, submit};

    use super::*;

    fn running() -> Job {
        let id = JobId::new(1, uuid::Uuid::from_u128(7));
        let (kind, priority) = (JobKind::Audit, Priority::Normal);
        let job = submit(NewJob { id, kind, priority, requested_by: "me".into() }, &[], 1).unwrap();
        claim(&job, &"one".into(), 2).unwrap()
    }

    /// Scans at these seconds, each of which returns the given row, and returns whether the job's lease has expired.
    fn expired(scans: &[(u64, &Job)]) -> bool {
        let (mut history, began) = (ScanHistory::default(), Instant::now());
        for (second, job) in scans {
            history.record(std::slice::from_ref(job), began + Duration::from_secs(*second));
        }
        history.has_expired(scans.last().unwrap().1)
    }

    #[test]
    fn an_unchanged_row_expires_after_the_lease_and_a_renewed_one_does_not() {
        let job = running();
        let renewed =
            report_progress(&job, job.running().unwrap(), job.progress.clone(), 3).unwrap();
        let still: Vec<_> = (0..=10).map(|second| (second, &job)).collect();
        assert!(expired(&still));
        assert!(!expired(&still[..10]));
        let mut beating = still.clone();
        beating[5].1 = &renewed;
        assert!(!expired(&beating[..6]));
        // The last scan saw an older revision than the one before.
        assert!(!expired(&beating));
    }

    #[test]
    fn a_job_that_a_newer_release_extended_is_not_claimed() {
        let metrics = JobMetrics::new(&runtime::metrics::Metrics::new("test")).unwrap();
        let jobs = Arc::new(storage::store::memory::MemoryStore::new());
        let scanner = JobScanner::new(jobs, "two".into(), metrics, || 0);
        let state = JobState::Queued { not_before_ms: 0, cancelling: false };
        let job = Job { state, ..running() };
        assert!(scanner.is_ready(&job, 1));
        let extended = Job { not_understood: vec!["/max_records_per_second".into()], ..job };
        assert!(!scanner.is_ready(&extended, 1));
    }

    #[test]
    fn a_gap_between_scans_does_not_expire_a_lease() {
        let job = running();
        assert!(!expired(&[(0, &job), (1, &job), (12, &job)]));
        assert!(!expired(&[(0, &job), (12, &job), (14, &job), (17, &job), (20, &job)]));
        let scans: Vec<_> = [0, 12, 14, 17, 20, 22].map(|second| (second, &job)).to_vec();
        assert!(expired(&scans));
    }
}
