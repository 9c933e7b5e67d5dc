//! Job workers in virtual time. Their job store may be unavailable, and their work only takes time.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use engine::coordinator::ActiveGeneration;
use operations::jobs::{
    JobExecutor, JobFailure, JobLease, JobMetrics, JobOutcome, JobWorker, JobWorkerDeps, ScanTurns,
};
use parking_lot::Mutex;
use runtime::metrics::Metrics;
use schemas::job::{Job, JobId, JobKind, NewJob, Priority, Verdict};
use schemas::{LogRef, PartitionCount, PartitionId, Term};
use storage::jobs::{JobRows, JobStore, submit};
use storage::store::memory::MemoryStore;
use storage::store::{CasOutcome, StoreError};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

thread_local! {
    /// Start of the virtual time of this thread's test.
    static BEGAN: Instant = Instant::now();
}

/// Virtual milliseconds since 1970.
pub fn now_ms() -> u64 {
    1_795_212_000_000 + BEGAN.with(|began| began.elapsed().as_millis() as u64)
}

/// A job store in memory that a test can make unavailable.
#[derive(Default)]
pub struct UnreliableJobStore {
    inner: MemoryStore,
    pub unavailable: AtomicBool,
    /// How often all rows were read.
    pub scans: AtomicU32,
}

impl UnreliableJobStore {
    fn available(&self) -> Result<&MemoryStore, StoreError> {
        if self.unavailable.load(Ordering::Relaxed) {
            return Err(StoreError::Unavailable("unreachable".into()));
        }
        Ok(&self.inner)
    }
}

#[async_trait]
impl JobStore for UnreliableJobStore {
    async fn job_rows(&self) -> Result<JobRows, StoreError> {
        self.scans.fetch_add(1, Ordering::Relaxed);
        self.available()?.job_rows().await
    }
    async fn job(&self, id: JobId) -> Result<Option<Job>, StoreError> {
        self.available()?.job(id).await
    }
    async fn change_job(&self, next: &Job) -> Result<CasOutcome, StoreError> {
        self.available()?.change_job(next).await
    }
    async fn delete_job(&self, id: JobId, revision: u64) -> Result<CasOutcome, StoreError> {
        self.available()?.delete_job(id, revision).await
    }
}

/// Work that only takes time.
pub struct Work {
    pub duration: Duration,
    /// Number of attempts that still fail.
    pub failures_left: AtomicU32,
    pub panics: AtomicBool,
    /// Each attempt's job and start.
    pub starts: Mutex<Vec<(JobId, Instant)>>,
    pub aborted: Mutex<Vec<JobId>>,
    /// Number of running attempts.
    pub running: Arc<AtomicU32>,
}

struct RunningGuard(Arc<AtomicU32>);

impl Drop for RunningGuard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[async_trait]
impl JobExecutor for Work {
    async fn run(&self, job: &JobLease) -> Result<JobOutcome, JobFailure> {
        self.running.fetch_add(1, Ordering::Relaxed);
        let _guard = RunningGuard(Arc::clone(&self.running));
        self.starts.lock().push((job.id(), Instant::now()));
        job.save(&"begun").await?;
        job.report_progress(1, 2, "half way");
        assert!(!self.panics.swap(false, Ordering::Relaxed), "a bug, for this test");
        sleep(self.duration).await;
        if self.failures_left.load(Ordering::Relaxed) > 0 {
            self.failures_left.fetch_sub(1, Ordering::Relaxed);
            return Err(JobFailure::Transient("a transient failure".into()));
        }
        Ok(JobOutcome { verdict: Verdict::Different, result: "two differences".into() })
    }

    async fn abort(&self, job: &JobLease) -> Result<Option<JobOutcome>, JobFailure> {
        assert_eq!(job.checkpoint::<String>()?.as_deref(), Some("begun"));
        self.aborted.lock().push(job.id());
        Ok(None)
    }
}

pub struct World {
    pub jobs: Arc<UnreliableJobStore>,
    pub work: Arc<Work>,
    pub metrics: Metrics,
    job_metrics: JobMetrics,
}

/// A running worker.
pub struct RunningWorker {
    pub task: JoinHandle<()>,
    pub stop: CancellationToken,
}

impl World {
    pub fn new(duration: Duration) -> Self {
        // Starts the virtual time of this test.
        now_ms();
        let work = Work {
            duration,
            failures_left: AtomicU32::new(0),
            panics: AtomicBool::new(false),
            starts: Mutex::default(),
            aborted: Mutex::default(),
            running: Arc::default(),
        };
        let (jobs, work) = (Arc::new(UnreliableJobStore::default()), Arc::new(work));
        let metrics = Metrics::new("test");
        let job_metrics = JobMetrics::new(&metrics).unwrap();
        Self { jobs, work, metrics, job_metrics }
    }

    pub fn worker(&self, name: &str) -> RunningWorker {
        self.worker_with(name, ScanTurns::every_second())
    }

    /// Starts the workers of processes that share the partitions of a log.
    pub fn sharing_workers(&self, count: u32) -> Vec<RunningWorker> {
        const PARTITIONS_EACH: u32 = 4;
        let partitions = PartitionCount::new((count * PARTITIONS_EACH).into()).unwrap();
        let log = LogRef::first("submissions", partitions);
        let of_worker = |number| {
            let first = number * PARTITIONS_EACH;
            let assigned: BTreeSet<_> = (first..first + PARTITIONS_EACH).map(PartitionId).collect();
            let active = ActiveGeneration { term: Term::FIRST, log: log.clone() };
            let turns = ScanTurns::shared(watch::channel(assigned).1, watch::channel(active).1);
            self.worker_with(&format!("worker {number}"), turns)
        };
        (0..count).map(of_worker).collect()
    }

    fn worker_with(&self, name: &str, turns: ScanTurns) -> RunningWorker {
        let worker = JobWorker::new(JobWorkerDeps {
            jobs: Arc::clone(&self.jobs) as _,
            executor: Arc::clone(&self.work) as _,
            name: name.into(),
            metrics: self.job_metrics.clone(),
            now_ms,
            turns,
        });
        let stop = CancellationToken::new();
        RunningWorker { task: tokio::spawn(worker.run(stop.clone())), stop }
    }

    pub async fn submit_job(&self, priority: Priority) -> JobId {
        let id = JobId::new(now_ms(), uuid::Uuid::new_v4());
        let new = NewJob { id, kind: JobKind::Audit, priority, requested_by: "an operator".into() };
        submit(self.jobs.as_ref(), new, now_ms()).await.unwrap().id
    }

    pub async fn job(&self, id: JobId) -> Job {
        self.jobs.inner.job(id).await.unwrap().unwrap()
    }

    /// Waits until a job satisfies a condition, at most an hour.
    pub async fn wait_until(&self, id: JobId, condition: impl Fn(&Job) -> bool) -> Job {
        let deadline = Instant::now() + Duration::from_secs(3_600);
        loop {
            let job = self.job(id).await;
            if condition(&job) {
                return job;
            }
            assert!(Instant::now() < deadline, "the job stays {job:?}");
            sleep(Duration::from_millis(10)).await;
        }
    }

    pub async fn wait_until_running(&self, id: JobId) -> Job {
        self.wait_until(id, |job| job.running().is_some() && job.checkpoint.is_some()).await
    }

    /// The jobs of all attempts, in order of their start.
    pub fn start_order(&self) -> Vec<JobId> {
        self.work.starts.lock().iter().map(|(id, _)| *id).collect()
    }

    /// Whether `/metrics` would have this line.
    pub fn exposes(&self, sample: &str) -> bool {
        let metrics = String::from_utf8(self.metrics.render()).unwrap();
        metrics.lines().any(|line| line == sample)
    }
}
