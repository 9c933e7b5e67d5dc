//! What operators see of background jobs.

use std::time::Duration;

use prometheus::{HistogramVec, IntCounterVec, IntGaugeVec};
use runtime::metrics::{Metrics, MetricsError};
use schemas::job::{Job, JobKind, JobState, Verdict};

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
                "Background jobs that are stored, by state; every processor shows all of them, or none while it does not know.",
                &["state"],
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
    pub(super) fn set_jobs(&self, jobs: &[Job]) {
        for state in JobState::NAMES {
            let count = jobs.iter().filter(|job| job.state.name() == state).count();
            self.jobs.with_label_values(&[state]).set(count as i64);
        }
    }

    /// The jobs cannot be seen now.
    pub(super) fn forget_jobs(&self) {
        self.jobs.reset();
    }

    /// A try ended, after so long.
    pub(super) fn ended(&self, kind: &JobKind, ending: Ending, took: Duration) {
        self.attempt(kind.name(), ending).inc();
        self.seconds.with_label_values(&[kind.name()]).observe(took.as_secs_f64());
    }
}
