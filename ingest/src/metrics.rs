//! The metrics of ingest. Labels are closed sets and never hold a person or an id.

use std::ptr;
use std::sync::Arc;
use std::time::Duration;

use prometheus::{Histogram, IntCounter, IntGauge};
use runtime::metrics::{Metrics, MetricsError, SECONDS_BUCKETS};
use runtime::problem::ProblemKind;
use storage::log::LogWriter;

use crate::pending::AppendOutcome;
use crate::refused_partitions::RefusedPartitions;

const BATCH_BUCKETS: &[f64] = &[1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1_000.0];

/// Metric handles with their labels resolved once.
#[derive(Debug)]
pub(crate) struct IngestMetrics {
    accepted: IntCounter,
    repeated: IntCounter,
    invalid: IntCounter,
    not_found: IntCounter,
    closed: IntCounter,
    full: IntCounter,
    limited: IntCounter,
    in_flight: IntCounter,
    reused: IntCounter,
    unavailable: IntCounter,
    unknown: IntCounter,
    append_seconds: Histogram,
    records_in_flight: IntGauge,
    records_unfrozen: IntGauge,
    records_unconfirmed: IntGauge,
    ids_unchecked: IntCounter,
    batch_items: Histogram,
}

impl IngestMetrics {
    /// Registers the metrics, and the state of the log's partitions.
    pub fn register(metrics: &Metrics, log: Arc<dyn LogWriter>) -> Result<Self, MetricsError> {
        RefusedPartitions::of(log)
            .and_then(|refused| metrics.registry().register(Box::new(refused)))
            .map_err(|source| MetricsError { name: "ingest_partition_refused".into(), source })?;
        let submissions = metrics.counter_vec(
            "ingest_submissions_total",
            "Submissions and withdrawals, by outcome.",
            &["outcome"],
        )?;
        let outcome = |label: &str| submissions.with_label_values(&[label]);
        Ok(Self {
            accepted: outcome("accepted"),
            repeated: outcome("repeated"),
            invalid: outcome("invalid"),
            not_found: outcome("not_found"),
            closed: outcome("closed"),
            full: outcome("full"),
            limited: outcome("limited"),
            in_flight: outcome("in_flight"),
            reused: outcome("reused"),
            unavailable: outcome("unavailable"),
            unknown: outcome("unknown"),
            append_seconds: metrics.histogram(
                "ingest_append_seconds",
                "Time until the log has acknowledged or rejected every record of an append.",
                SECONDS_BUCKETS,
            )?,
            records_in_flight: metrics.gauge(
                "ingest_records_in_flight",
                "Records that wait for the log's acknowledgement.",
            )?,
            records_unfrozen: metrics.gauge(
                "ingest_records_unfrozen",
                "First records of a budget, until its rules are frozen, and withdrawals before them, until the control topic confirms its rules.",
            )?,
            records_unconfirmed: metrics.gauge(
                "ingest_records_unconfirmed",
                "Records of budgets with a closing time, until the control topic confirms that the budget was not closed meanwhile.",
            )?,
            ids_unchecked: metrics.counter(
                "ingest_submission_ids_unchecked_total",
                "Submissions that were accepted although it was unknown whether their submission id was new, because the Redis of ids was unreachable or full.",
            )?,
            batch_items: metrics.histogram(
                "ingest_batch_items",
                "Items per batch request.",
                BATCH_BUCKETS,
            )?,
        })
    }

    /// Counts the outcomes of one append. Neighbours with the same outcome are one update, because all requests share
    /// the counters.
    pub fn count_outcomes(&self, outcomes: &[AppendOutcome]) {
        let same_counter = |one: &AppendOutcome, next: &AppendOutcome| {
            ptr::eq(self.counter(one), self.counter(next))
        };
        for group in outcomes.chunk_by(same_counter) {
            if let Some(first) = group.first() {
                self.counter(first).inc_by(group.len() as u64);
            }
        }
        let is_unchecked = |outcome: &&AppendOutcome| {
            matches!(outcome, AppendOutcome::Accepted { id_checked: false, repeated: false, .. })
        };
        let unchecked = outcomes.iter().filter(is_unchecked).count();
        if unchecked > 0 {
            self.ids_unchecked.inc_by(unchecked as u64);
        }
    }

    fn counter(&self, outcome: &AppendOutcome) -> &IntCounter {
        match outcome {
            AppendOutcome::Accepted { repeated: false, .. } => &self.accepted,
            AppendOutcome::Accepted { repeated: true, .. } => &self.repeated,
            AppendOutcome::InFlight => &self.in_flight,
            AppendOutcome::IdReused => &self.reused,
            AppendOutcome::Closed | AppendOutcome::ClosedMeanwhile => &self.closed,
            AppendOutcome::Full => &self.full,
            AppendOutcome::Unavailable | AppendOutcome::StandingUnknown => &self.unavailable,
            AppendOutcome::Unknown => &self.unknown,
        }
    }

    /// Counts submissions that were rejected before the append.
    pub fn count_rejected(&self, kind: ProblemKind, submissions: u64) {
        let outcome = match kind {
            ProblemKind::NotFound => &self.not_found,
            ProblemKind::BudgetClosed => &self.closed,
            ProblemKind::RateLimited => &self.limited,
            ProblemKind::Unavailable => &self.unavailable,
            _ => &self.invalid,
        };
        outcome.inc_by(submissions);
    }

    pub fn observe_append(&self, elapsed: Duration) {
        self.append_seconds.observe(elapsed.as_secs_f64());
    }

    pub fn observe_batch(&self, items: usize) {
        self.batch_items.observe(items as f64);
    }

    pub fn records_in_flight(&self) -> IntGauge {
        self.records_in_flight.clone()
    }

    pub fn records_unfrozen(&self) -> IntGauge {
        self.records_unfrozen.clone()
    }

    pub fn records_unconfirmed(&self) -> IntGauge {
        self.records_unconfirmed.clone()
    }
}
