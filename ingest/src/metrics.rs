//! What ingest shows of itself. Labels are closed sets; nobody's id is among them.

use std::ptr;
use std::sync::Arc;
use std::time::Instant;

use prometheus::{Histogram, IntCounter, IntGauge};
use runtime::metrics::{Metrics, MetricsError, SECONDS_BUCKETS};
use runtime::problem::ProblemKind;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::acceptance::Outcome;

const BATCH_BUCKETS: &[f64] = &[1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1_000.0];

/// The handles, resolved once.
#[derive(Debug)]
pub(crate) struct IngestMetrics {
    accepted: IntCounter,
    repeated: IntCounter,
    invalid: IntCounter,
    not_found: IntCounter,
    closed: IntCounter,
    in_flight: IntCounter,
    reused: IntCounter,
    unavailable: IntCounter,
    unknown: IntCounter,
    append_seconds: Histogram,
    records_in_flight: IntGauge,
    batch_items: Histogram,
}

impl IngestMetrics {
    pub fn register(metrics: &Metrics) -> Result<Self, MetricsError> {
        let submissions = metrics.counter_vec(
            "ingest_submissions_total",
            "Submissions and withdrawals, by what became of them.",
            &["outcome"],
        )?;
        let outcome = |label: &str| submissions.with_label_values(&[label]);
        Ok(Self {
            accepted: outcome("accepted"),
            repeated: outcome("repeated"),
            invalid: outcome("invalid"),
            not_found: outcome("not_found"),
            closed: outcome("closed"),
            in_flight: outcome("in_flight"),
            reused: outcome("reused"),
            unavailable: outcome("unavailable"),
            unknown: outcome("unknown"),
            append_seconds: metrics.histogram(
                "ingest_append_seconds",
                "Time from handing records to the log to its having answered for all of them.",
                SECONDS_BUCKETS,
            )?,
            records_in_flight: metrics
                .gauge("ingest_records_in_flight", "Records that wait for the log.")?,
            batch_items: metrics.histogram(
                "ingest_batch_items",
                "Items of a batch.",
                BATCH_BUCKETS,
            )?,
        })
    }

    /// Counts what went through the log's door: neighbours with the same outcome at once, as all requests share the
    /// counters.
    pub fn count(&self, outcomes: &[Outcome]) {
        let alike = |one: &Outcome, next: &Outcome| ptr::eq(self.counter(one), self.counter(next));
        for group in outcomes.chunk_by(alike) {
            if let Some(first) = group.first() {
                self.counter(first).inc_by(group.len() as u64);
            }
        }
    }

    fn counter(&self, outcome: &Outcome) -> &IntCounter {
        match outcome {
            Outcome::Accepted { repeated: false, .. } => &self.accepted,
            Outcome::Accepted { repeated: true, .. } => &self.repeated,
            Outcome::InFlight => &self.in_flight,
            Outcome::Reused => &self.reused,
            Outcome::Unavailable => &self.unavailable,
            Outcome::Unknown => &self.unknown,
        }
    }

    /// Counts submissions that were refused before they came there.
    pub fn refused(&self, kind: ProblemKind, submissions: u64) {
        let outcome = match kind {
            ProblemKind::NotFound => &self.not_found,
            ProblemKind::BudgetClosed => &self.closed,
            ProblemKind::Unavailable => &self.unavailable,
            _ => &self.invalid,
        };
        outcome.inc_by(submissions);
    }

    pub fn appended_since(&self, started: Instant) {
        self.append_seconds.observe(started.elapsed().as_secs_f64());
    }

    pub fn batch(&self, items: usize) {
        self.batch_items.observe(items as f64);
    }
}

/// Room for records on their way into the log, and the gauge that shows how much is taken.
#[derive(Debug, Clone)]
pub(crate) struct Room {
    free: Arc<Semaphore>,
    taken: IntGauge,
}

impl Room {
    pub fn new(records: usize, metrics: &IngestMetrics) -> Self {
        Self {
            free: Arc::new(Semaphore::new(records.min(Semaphore::MAX_PERMITS))),
            taken: metrics.records_in_flight.clone(),
        }
    }

    /// Takes room for some records, without waiting.
    pub fn take(&self, records: usize) -> Option<TakenRoom> {
        let permit =
            Arc::clone(&self.free).try_acquire_many_owned(u32::try_from(records).ok()?).ok()?;
        let records = i64::try_from(records).ok()?;
        self.taken.add(records);
        Some(TakenRoom { _permit: permit, records, taken: self.taken.clone() })
    }
}

/// Room that is given back when it is dropped.
#[derive(Debug)]
pub(crate) struct TakenRoom {
    _permit: OwnedSemaphorePermit,
    records: i64,
    taken: IntGauge,
}

impl Drop for TakenRoom {
    fn drop(&mut self) {
        self.taken.sub(self.records);
    }
}
