//! Metrics of background jobs.

use std::time::Duration;

use prometheus::{HistogramVec, IntCounterVec, IntGaugeVec};
use runtime::metrics::{Metrics, MetricsError};
use schemas::job::{Job, JobKind, JobState, Priority, Verdict};
use storage::jobs::JobRows;

const SECONDS: &[f64] = &[0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3_600.0, 14_400.0];

/// How an attempt ended, as a metric label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AttemptOutcome {
    Completed(Verdict),
    Failed,
    Dead,
    Cancelled,
    HandedBack,
    Lost,
}

impl AttemptOutcome {
    fn name(self) -> &'static str {
        match self {
            Self::Completed(verdict) => verdict.name(),
            Self::Failed => "failed",
            Self::Dead => "dead",
            Self::Cancelled => "cancelled",
            Self::HandedBack => "handed_back",
            Self::Lost => "lost",
        }
    }

    fn all() -> impl Iterator<Item = Self> {
        let done = Verdict::ALL.into_iter().map(Self::Completed);
        done.chain([Self::Failed, Self::Dead, Self::Cancelled, Self::HandedBack, Self::Lost])
    }
}

/// Metrics of background jobs.
#[derive(Debug, Clone)]
pub struct JobMetrics {
    jobs: IntGaugeVec,
    oldest: IntGaugeVec,
    attempts: IntCounterVec,
    seconds: HistogramVec,
}

impl JobMetrics {
    /// Registers the metrics.
    ///
    /// # Errors
    /// When one of them is registered as something else already.
    pub fn new(metrics: &Metrics) -> Result<Self, MetricsError> {
        let all = Self {
            jobs: metrics.gauge_vec(
                "processor_jobs",
                "Stored background jobs by state (unreadable: damaged, or of a newer release). Every processor reports all of them, or none while the store is unavailable.",
                &["state"],
            )?,
            oldest: metrics.gauge_vec(
                "processor_job_oldest_seconds",
                "Age of the oldest job, by state and priority; 0 if there is none.",
                &["state", "priority"],
            )?,
            attempts: metrics.counter_vec(
                "processor_job_attempts_total",
                "Job attempts that ended in this process, by kind and outcome: clean, different, incomplete (succeeded with that verdict), failed, dead, cancelled, handed_back, lost.",
                &["kind", "outcome"],
            )?,
            seconds: metrics.histogram_vec(
                "processor_job_duration_seconds",
                "Duration of job attempts in this process.",
                &["kind"],
                SECONDS,
            )?,
        };
        // Initialized to 0, so that the first attempt is an increase.
        for kind in JobKind::NAMES {
            AttemptOutcome::all().for_each(|outcome| all.attempt(kind, outcome).inc_by(0));
        }
        Ok(all)
    }

    fn attempt(&self, kind: &str, outcome: AttemptOutcome) -> prometheus::IntCounter {
        self.attempts.with_label_values(&[kind, outcome.name()])
    }

    /// Sets the gauges from the latest scan.
    pub(super) fn set_jobs(&self, JobRows { jobs, unreadable }: &JobRows, now_ms: u64) {
        for state in JobState::NAMES {
            let count = jobs.iter().filter(|job| job.state.name() == state).count();
            self.jobs.with_label_values(&[state]).set(count as i64);
        }
        self.jobs.with_label_values(&["unreadable"]).set(unreadable.len() as i64);
        for priority in Priority::ALL {
            let of_priority = || jobs.iter().filter(|job| job.priority == priority);
            let queued = of_priority().filter_map(ready_since_ms);
            let running = of_priority().filter_map(|job| Some(job.running()?.began_at_ms));
            for (state, oldest_ms) in [("queued", queued.min()), ("running", running.min())] {
                let age_ms = oldest_ms.map_or(0, |since_ms| now_ms.saturating_sub(since_ms));
                let age_s = i64::try_from(age_ms / 1_000).unwrap_or(i64::MAX);
                self.oldest.with_label_values(&[state, priority.name()]).set(age_s);
            }
        }
    }

    /// Clears the gauges while jobs cannot be read.
    pub(super) fn forget_jobs(&self) {
        self.jobs.reset();
        self.oldest.reset();
    }

    /// Counts an ended attempt.
    pub(super) fn ended(&self, kind: &JobKind, outcome: AttemptOutcome, took: Duration) {
        self.attempt(kind.name(), outcome).inc();
        self.seconds.with_label_values(&[kind.name()]).observe(took.as_secs_f64());
    }
}

/// Since when a job has been ready, in milliseconds since 1970; in the future if it is not due yet.
fn ready_since_ms(job: &Job) -> Option<u64> {
    match job.state {
        JobState::Queued { not_before_ms, .. } => Some(job.changed_at_ms.max(not_before_ms)),
        _ => None,
    }
}
