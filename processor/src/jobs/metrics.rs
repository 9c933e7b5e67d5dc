//! What operators see of background jobs.

use std::time::Duration;

use prometheus::{HistogramVec, IntCounterVec, IntGaugeVec};
use runtime::metrics::{Metrics, MetricsError};
use schemas::job::{Job, JobKind, JobState, Priority, Verdict};
use storage::jobs::JobRows;

const SECONDS: &[f64] = &[0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3_600.0, 14_400.0];

/// How a worker's try at a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    Done(Verdict),
    Failed,
    Dead,
    Cancelled,
    HandedBack,
    Lost,
}

impl Ending {
    fn name(self) -> &'static str {
        match self {
            Self::Done(verdict) => verdict.name(),
            Self::Failed => "failed",
            Self::Dead => "dead",
            Self::Cancelled => "cancelled",
            Self::HandedBack => "handed_back",
            Self::Lost => "lost",
        }
    }

    fn all() -> impl Iterator<Item = Self> {
        let done = Verdict::ALL.into_iter().map(Self::Done);
        done.chain([Self::Failed, Self::Dead, Self::Cancelled, Self::HandedBack, Self::Lost])
    }
}

/// All metrics of background jobs.
#[derive(Debug, Clone)]
pub struct JobMetrics {
    jobs: IntGaugeVec,
    oldest: IntGaugeVec,
    attempts: IntCounterVec,
    seconds: HistogramVec,
}

impl JobMetrics {
    /// Registers them.
    ///
    /// # Errors
    /// When one of them is registered as something else already.
    pub fn new(metrics: &Metrics) -> Result<Self, MetricsError> {
        let all = Self {
            jobs: metrics.gauge_vec(
                "processor_jobs",
                "Background jobs that are stored, by state (unreadable: damaged, or of a newer release); every processor shows all of them, or none while it does not know.",
                &["state"],
            )?,
            oldest: metrics.gauge_vec(
                "processor_job_oldest_seconds",
                "Of the jobs that wait (queued) or run, for how long the one has that has longest; 0 if there is none.",
                &["state", "priority"],
            )?,
            attempts: metrics.counter_vec(
                "processor_job_attempts_total",
                "Tries at jobs that ended in this process: clean, different, incomplete (done, with that verdict), failed, dead, cancelled, handed_back, lost.",
                &["kind", "outcome"],
            )?,
            seconds: metrics.histogram_vec(
                "processor_job_duration_seconds",
                "How long this process was at a job.",
                &["kind"],
                SECONDS,
            )?,
        };
        // From the start: the first of a kind is an increase, too.
        for kind in JobKind::NAMES {
            Ending::all().for_each(|ending| all.attempt(kind, ending).inc_by(0));
        }
        Ok(all)
    }

    fn attempt(&self, kind: &str, ending: Ending) -> prometheus::IntCounter {
        self.attempts.with_label_values(&[kind, ending.name()])
    }

    /// All jobs, as they were seen last.
    pub(super) fn set_jobs(&self, JobRows { jobs, unreadable }: &JobRows, now_ms: u64) {
        for state in JobState::NAMES {
            let count = jobs.iter().filter(|job| job.state.name() == state).count();
            self.jobs.with_label_values(&[state]).set(count as i64);
        }
        self.jobs.with_label_values(&["unreadable"]).set(unreadable.len() as i64);
        for priority in Priority::ALL {
            let of_priority = || jobs.iter().filter(|job| job.priority == priority);
            let waits = of_priority().filter_map(waits_since_ms);
            let runs = of_priority().filter_map(|job| Some(job.running()?.began_at_ms));
            for (state, oldest_ms) in [("queued", waits.min()), ("running", runs.min())] {
                let age_ms = oldest_ms.map_or(0, |since_ms| now_ms.saturating_sub(since_ms));
                let age_s = i64::try_from(age_ms / 1_000).unwrap_or(i64::MAX);
                self.oldest.with_label_values(&[state, priority.name()]).set(age_s);
            }
        }
    }

    /// The jobs cannot be seen now.
    pub(super) fn forget_jobs(&self) {
        self.jobs.reset();
        self.oldest.reset();
    }

    /// A try ended, after so long.
    pub(super) fn ended(&self, kind: &JobKind, ending: Ending, took: Duration) {
        self.attempt(kind.name(), ending).inc();
        self.seconds.with_label_values(&[kind.name()]).observe(took.as_secs_f64());
    }
}

/// Since when a job has waited for a worker, in milliseconds since 1970; in the future, if it is not due yet.
fn waits_since_ms(job: &Job) -> Option<u64> {
    match job.state {
        JobState::Queued { not_before_ms, .. } => Some(job.changed_at_ms.max(not_before_ms)),
        _ => None,
    }
}
