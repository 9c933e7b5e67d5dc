//! Scanning all jobs, when a scan is due, and detecting running jobs whose worker has died.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use schemas::job::{self, Job, JobId, JobName, JobState};
use storage::jobs::JobStore;
use storage::store::StoreError;
use tokio::time::{Instant, sleep};

use super::ScanTurns;
use super::lease::{HEARTBEAT_INTERVAL, LEASE_DURATION, NowMs};
use super::metrics::JobMetrics;

/// How often a worker checks whether a scan is due, and the pause between two scans of all workers together.
pub(super) const SCAN_INTERVAL: Duration = Duration::from_secs(1);

/// Pause between two scans of a worker without turns: while it has no partition, or Kafka is unreachable.
const MAX_SCAN_PAUSE: Duration = Duration::from_secs(60);

/// After a longer gap between two scans, unchanged rows prove nothing.
const MAX_SCAN_GAP: Duration = Duration::from_secs(4);

/// A running job whose row has not changed for this long is watched: a worker that is alive has renewed its lease
/// since.
const WATCH_AFTER: Duration = HEARTBEAT_INTERVAL.saturating_add(Duration::from_secs(1));

/// Reads all jobs for one worker.
pub(super) struct JobScanner {
    jobs: Arc<dyn JobStore>,
    worker: JobName,
    metrics: JobMetrics,
    now_ms: NowMs,
    turns: ScanTurns,
    history: Mutex<ScanHistory>,
}

#[derive(Default)]
struct ScanHistory {
    /// Time of the latest scan.
    scanned_at: Option<Instant>,
    /// Whether the next scan is due at once.
    is_due: bool,
    /// The running jobs.
    running: HashMap<JobId, SeenRevision>,
}

/// A running job's revision.
#[derive(Clone, Copy)]
struct SeenRevision {
    revision: u64,
    /// Since when it has been seen.
    since: Instant,
    /// Since when it has been seen without a gap between two scans.
    without_gap_since: Instant,
}

impl JobScanner {
    pub fn new(
        jobs: Arc<dyn JobStore>,
        worker: JobName,
        metrics: JobMetrics,
        now_ms: NowMs,
        turns: ScanTurns,
    ) -> Self {
        Self { jobs, worker, metrics, now_ms, turns, history: Mutex::default() }
    }

    /// Whether this worker has to scan now: it is its turn, it watches a job whose worker may have died, or it could
    /// not scan.
    pub fn is_due(&self) -> bool {
        self.turns.includes((self.now_ms)()) || self.history().is_due(Instant::now())
    }

    /// Makes a scan due at once, whoever has the turn: after an error, or a change whose outcome is unknown.
    pub fn scan_soon(&self) {
        self.history().is_due = true;
    }

    /// Reads all jobs.
    pub async fn scan(&self) -> Result<Vec<Job>, StoreError> {
        let read = self.jobs.job_rows().await;
        match &read {
            Ok(rows) => {
                self.metrics.set_jobs(rows, (self.now_ms)());
                self.history().record(&rows.jobs, Instant::now());
            }
            Err(_) => {
                self.metrics.forget_jobs();
                self.scan_soon();
            }
        }
        Ok(read?.jobs)
    }

    /// Scans whenever a scan is due, for as long as it is awaited.
    pub async fn keep_scanning(&self) -> std::convert::Infallible {
        loop {
            sleep(SCAN_INTERVAL).await;
            if self.is_due() {
                // The lease logs that the store is unavailable.
                let _ = self.scan().await;
            }
        }
    }

    /// Whether this worker may claim a job: it is queued and due, or its lease has expired. A job that a newer release
    /// extended is left to that release.
    pub fn is_ready(&self, job: &Job, now_ms: u64) -> bool {
        if !job.is_understood() {
            return false;
        }
        match &job.state {
            JobState::Queued { not_before_ms, .. } => job::is_due(*not_before_ms, now_ms),
            JobState::Running { attempt, .. } => {
                attempt.worker != self.worker && self.history().has_expired(job)
            }
            _ => false,
        }
    }

    fn history(&self) -> MutexGuard<'_, ScanHistory> {
        self.history.lock()
    }
}

impl ScanHistory {
    fn is_due(&self, now: Instant) -> bool {
        let Some(scanned_at) = self.scanned_at else { return true };
        let is_watched = |seen: &SeenRevision| scanned_at - seen.since >= WATCH_AFTER;
        self.is_due || now - scanned_at >= MAX_SCAN_PAUSE || self.running.values().any(is_watched)
    }

    fn record(&mut self, jobs: &[Job], now: Instant) {
        let after_gap = self.scanned_at.is_some_and(|at| now - at > MAX_SCAN_GAP);
        (self.scanned_at, self.is_due) = (Some(now), false);
        // Jobs that a newer release extended are watched by that release.
        let running = jobs.iter().filter(|job| job.is_understood() && job.running().is_some());
        let seen = running.map(|job| {
            // A later scan may see an older revision.
            let known = self.running.get(&job.id).filter(|seen| seen.revision >= job.revision);
            let mut seen = known.copied().unwrap_or(SeenRevision {
                revision: job.revision,
                since: now,
                without_gap_since: now,
            });
            if after_gap {
                seen.without_gap_since = now;
            }
            (job.id, seen)
        });
        self.running = seen.collect();
    }

    fn has_expired(&self, job: &Job) -> bool {
        let known = self.running.get(&job.id).zip(self.scanned_at);
        known.is_some_and(|(seen, at)| {
            seen.revision == job.revision && at - seen.without_gap_since >= LEASE_DURATION
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
        let scanner = JobScanner::new(jobs, "two".into(), metrics, || 0, ScanTurns::every_second());
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

    /// Scans at these seconds, each of which returns the given row, and returns whether another scan is due a second
    /// after the last one, without a turn.
    fn due_after(scans: &[(u64, &Job)]) -> bool {
        let (mut history, began) = (ScanHistory::default(), Instant::now());
        for (second, job) in scans {
            history.record(std::slice::from_ref(job), began + Duration::from_secs(*second));
        }
        history.is_due(began + Duration::from_secs(scans.last().unwrap().0 + 1))
    }

    #[test]
    fn only_a_job_whose_row_stays_unchanged_is_watched() {
        let job = running();
        let renew = |job: &Job| {
            report_progress(job, job.running().unwrap(), job.progress.clone(), 3).unwrap()
        };
        let (second, third) = (renew(&job), renew(&renew(&job)));
        assert!(!due_after(&[(0, &job), (8, &second), (16, &third)]));
        assert!(!due_after(&[(0, &job), (2, &job)]));
        assert!(due_after(&[(0, &job), (8, &job)]));
        assert!(due_after(&[(0, &job), (8, &job), (9, &job)]));
        assert!(!due_after(&[(0, &job), (8, &job), (9, &second)]));
        // Watching proves within the lease that the worker is dead.
        let watched: Vec<_> = std::iter::once(0).chain(8..=18).map(|at| (at, &job)).collect();
        assert!(!expired(&watched[..watched.len() - 1]));
        assert!(expired(&watched));
    }

    #[test]
    fn a_worker_without_turns_scans_now_and_then_and_soon_after_an_error() {
        let began = Instant::now();
        let mut history = ScanHistory::default();
        assert!(history.is_due(began));
        history.record(&[], began);
        assert!(!history.is_due(began + MAX_SCAN_PAUSE - Duration::from_millis(1)));
        assert!(history.is_due(began + MAX_SCAN_PAUSE));
        history.is_due = true;
        assert!(history.is_due(began));
        history.record(&[], began);
        assert!(!history.is_due(began));
    }
}
