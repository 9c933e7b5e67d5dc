//! Workers in virtual time, on a place of jobs that may be away, with work that only takes time.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use processor::jobs::{Done, Failure, Held, JobMetrics, Runner, Worker, WorkerParts};
use runtime::metrics::Metrics;
use schemas::job::{Job, JobId, JobKind, NewJob, Priority, Verdict};
use storage::jobs::{JobRows, JobStore, submit};
use storage::store::memory::MemoryStore;
use storage::store::{Conditional, StoreError};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

thread_local! {
    /// Each test has a thread, and a time, of its own.
    static BEGAN: Instant = Instant::now();
}

/// Virtual milliseconds since 1970.
pub fn now_ms() -> u64 {
    1_795_212_000_000 + BEGAN.with(|began| began.elapsed().as_millis() as u64)
}

/// A place of jobs that may be away.
#[derive(Default)]
pub struct Place {
    inner: MemoryStore,
    pub away: AtomicBool,
}

impl Place {
    fn there(&self) -> Result<&MemoryStore, StoreError> {
        let away = self.away.load(Ordering::Relaxed);
        if away { Err(StoreError::Unavailable("away".into())) } else { Ok(&self.inner) }
    }
}

#[async_trait]
impl JobStore for Place {
    async fn job_rows(&self) -> Result<JobRows, StoreError> {
        self.there()?.job_rows().await
    }
    async fn job(&self, id: JobId) -> Result<Option<Job>, StoreError> {
        self.there()?.job(id).await
    }
    async fn change_job(&self, next: &Job) -> Result<Conditional, StoreError> {
        self.there()?.change_job(next).await
    }
    async fn delete_job(&self, id: JobId, revision: u64) -> Result<Conditional, StoreError> {
        self.there()?.delete_job(id, revision).await
    }
}

/// Work that only takes time.
pub struct Work {
    pub lasts: Duration,
    /// So many tries come to nothing.
    pub fails: AtomicU32,
    pub panics: AtomicBool,
    /// Each try, and when it began.
    pub begun: Mutex<Vec<(JobId, Instant)>>,
    pub given_up: Mutex<Vec<JobId>>,
    /// How many tries are on.
    pub on: Arc<AtomicU32>,
}

struct On(Arc<AtomicU32>);

impl Drop for On {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[async_trait]
impl Runner for Work {
    async fn run(&self, job: &Held) -> Result<Done, Failure> {
        self.on.fetch_add(1, Ordering::Relaxed);
        let _on = On(Arc::clone(&self.on));
        self.begun.lock().unwrap().push((job.id(), Instant::now()));
        job.save(&"begun").await?;
        job.tell(1, 2, "half way");
        assert!(!self.panics.swap(false, Ordering::Relaxed), "a bug, for this test");
        sleep(self.lasts).await;
        if self.fails.load(Ordering::Relaxed) > 0 {
            self.fails.fetch_sub(1, Ordering::Relaxed);
            return Err(Failure::Again("no luck".into()));
        }
        Ok(Done { verdict: Verdict::Different, result: "two differences".into() })
    }

    async fn give_up(&self, job: &Held) -> Result<Option<Done>, Failure> {
        assert_eq!(job.checkpoint::<String>()?.as_deref(), Some("begun"));
        self.given_up.lock().unwrap().push(job.id());
        Ok(None)
    }
}

pub struct World {
    pub place: Arc<Place>,
    pub work: Arc<Work>,
    pub metrics: Metrics,
}

/// A worker that runs.
pub struct Running {
    pub task: JoinHandle<()>,
    pub stop: CancellationToken,
}

impl World {
    pub fn new(lasts: Duration) -> Self {
        // The time of this test begins now.
        now_ms();
        let work = Work {
            lasts,
            fails: AtomicU32::new(0),
            panics: AtomicBool::new(false),
            begun: Mutex::default(),
            given_up: Mutex::default(),
            on: Arc::default(),
        };
        let (place, work) = (Arc::new(Place::default()), Arc::new(work));
        Self { place, work, metrics: Metrics::new("test") }
    }

    pub fn worker(&self, name: &str) -> Running {
        let worker = Worker::new(WorkerParts {
            jobs: Arc::clone(&self.place) as _,
            runner: Arc::clone(&self.work) as _,
            name: name.into(),
            metrics: JobMetrics::new(&self.metrics).unwrap(),
            now_ms,
        });
        let stop = CancellationToken::new();
        Running { task: tokio::spawn(worker.run(stop.clone())), stop }
    }

    pub async fn ask(&self, priority: Priority) -> JobId {
        let id = JobId::new(now_ms(), uuid::Uuid::new_v4());
        let new = NewJob { id, kind: JobKind::Audit, priority, asked_by: "an operator".into() };
        submit(self.place.as_ref(), new, now_ms()).await.unwrap().id
    }

    pub async fn job(&self, id: JobId) -> Job {
        self.place.inner.job(id).await.unwrap().unwrap()
    }

    /// Waits until a job is as it is wanted, for at most an hour.
    pub async fn until(&self, id: JobId, wanted: impl Fn(&Job) -> bool) -> Job {
        let deadline = Instant::now() + Duration::from_secs(3_600);
        loop {
            let job = self.job(id).await;
            if wanted(&job) {
                return job;
            }
            assert!(Instant::now() < deadline, "it stays {job:?}");
            sleep(Duration::from_millis(10)).await;
        }
    }

    pub async fn until_it_runs(&self, id: JobId) -> Job {
        self.until(id, |job| job.running().is_some() && job.checkpoint.is_some()).await
    }

    /// In which order the tries began.
    pub fn order(&self) -> Vec<JobId> {
        self.work.begun.lock().unwrap().iter().map(|(id, _)| *id).collect()
    }

    pub fn shows(&self, sample: &str) -> bool {
        let shown = String::from_utf8(self.metrics.render()).unwrap();
        shown.lines().any(|line| line == sample)
    }
}
