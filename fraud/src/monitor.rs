//! Metrics of the signals of the last hour, computed every few minutes by the processor that has partition 0.
//!
//! A value exists only while it is computed: not in another process, not of a budget that is gone, not while the
//! signals cannot be read, and not of so few people that it would mean nothing.

#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus::{GaugeVec, IntGauge};
use runtime::clock::now_ms;
use runtime::metrics::{Metrics, MetricsError};
use schemas::{BudgetId, PartitionId};
use storage::control::BudgetDefinitions;
use storage::log::ReadError;
use storage::signals::{SignalQuery, SignalReader};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::summary::{SignalSummary, SummaryBounds, SummaryFold, SummaryWindow};

/// Pause between two computations. Longer if reading takes long: see [`MAX_BUSY_SHARE`].
const INTERVAL: Duration = Duration::from_secs(180);
/// Computations take at most one part in so many of the time.
const MAX_BUSY_SHARE: u32 = 20;
/// How long one computation may take.
const COMPUTE_TIMEOUT: Duration = Duration::from_secs(120);
/// The partition whose process computes.
const COMPUTING_PARTITION: PartitionId = PartitionId(0);
/// Budgets that have metrics, at most.
const MAX_BUDGETS: usize = 50;
/// Signals' people that are told apart, of all budgets: about 60 MB. With more there are no metrics.
const MAX_PEOPLE: usize = 1_000_000;
/// Members of all networks and ballots of all budgets: about 150 MB. With more there are no metrics.
const MAX_MEMBERS: usize = 1_000_000;
/// Bounds of the fold of one budget: a network of 60,000 people, each with another ballot and user agent, is counted
/// exactly.
const BOUNDS: SummaryBounds = SummaryBounds { people: MAX_PEOPLE, members: 400_000 };
/// People below which a share or a ratio means nothing.
const MIN_PEOPLE: u64 = 100;

/// The gauges.
#[derive(Debug, Clone)]
pub struct SignalMetrics {
    largest_network: GaugeVec,
    new_people: GaugeVec,
    /// 1 while a value is missing or too low, so that no flood silences the alerts unseen. Of the budgets that have
    /// values.
    incomplete: IntGauge,
}

impl SignalMetrics {
    /// Registers the metrics.
    ///
    /// # Errors
    /// When a name is taken.
    pub fn new(metrics: &Metrics) -> Result<Self, MetricsError> {
        Ok(Self {
            largest_network: metrics.float_gauge_vec(
                "signals_largest_network_ratio",
                "Share of the network with the most people in all people of a known network, of the last hour. Only with 100 such people. While the signals are incomplete, at least this.",
                &["budget"],
            )?,
            new_people: metrics.float_gauge_vec(
                "signals_new_people_ratio",
                "New people of the last hour, divided by those of the same hour a day before. Only if that hour had 100.",
                &["budget"],
            )?,
            incomplete: metrics.gauge(
                "signals_incomplete",
                "1 while the ratios of signals miss people or are missing: more than memory is kept for, or the signals cannot be read.",
            )?,
        })
    }

    /// Replaces all values.
    fn set(&self, summaries: &[(BudgetId, SignalSummary)]) {
        let is_truncated =
            |summary: &SignalSummary| summary.truncated.people || summary.truncated.networks;
        self.clear(summaries.iter().any(|(_, summary)| is_truncated(summary)));
        for (budget, summary) in summaries {
            let label = &[budget.as_str()];
            if let Some(ratio) = largest_network_ratio(summary) {
                self.largest_network.with_label_values(label).set(ratio);
            }
            if let Some(ratio) = new_people_ratio(summary) {
                self.new_people.with_label_values(label).set(ratio);
            }
        }
    }

    /// Removes all ratios.
    fn clear(&self, is_incomplete: bool) {
        self.largest_network.reset();
        self.new_people.reset();
        self.incomplete.set(i64::from(is_incomplete));
    }
}

/// Returns the share of the largest network; `None` if it is not known. Of a network with more people than memory is
/// kept for, the share is too low.
fn largest_network_ratio(summary: &SignalSummary) -> Option<f64> {
    let people = summary.people_with_network;
    let largest = summary.networks.first()?;
    let is_known = !summary.truncated.people && people >= MIN_PEOPLE;
    is_known.then(|| largest.people as f64 / people as f64)
}

/// Returns the ratio of new people; `None` if it is not known.
fn new_people_ratio(summary: &SignalSummary) -> Option<f64> {
    let hour = summary.new_people.first()?;
    let is_known = !summary.truncated.people && hour.people_day_before >= MIN_PEOPLE;
    is_known.then(|| hour.people as f64 / hour.people_day_before as f64)
}

/// Dependencies of the monitor.
pub struct SignalMonitorDeps {
    /// The signals.
    pub signals: Arc<dyn SignalReader>,
    /// The budgets.
    pub definitions: Arc<dyn BudgetDefinitions>,
    /// The partitions that are assigned to this process.
    pub assigned: watch::Receiver<BTreeSet<PartitionId>>,
    /// The metrics.
    pub metrics: SignalMetrics,
}

/// Keeps the metrics up to date.
pub struct SignalMonitor {
    deps: SignalMonitorDeps,
}

/// Why there are no values.
#[derive(Debug, thiserror::Error)]
enum NotComputed {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("the signals are of more than {MAX_PEOPLE} people")]
    TooManyPeople,
    #[error("the signals are of too many networks and ballots")]
    TooManyMembers,
    #[error("reading took longer than {} s", COMPUTE_TIMEOUT.as_secs())]
    TimedOut,
}

impl SignalMonitor {
    /// Creates a monitor.
    pub fn new(deps: SignalMonitorDeps) -> Self {
        Self { deps }
    }

    /// Runs until `stop` is cancelled.
    pub async fn run(mut self, stop: CancellationToken) {
        while stop.run_until_cancelled(self.tick()).await.is_some() {}
        self.deps.metrics.clear(false);
    }

    /// Waits for the partition, computes once and pauses; ends early when the partition is lost.
    async fn tick(&mut self) {
        let is_ours = |assigned: &BTreeSet<PartitionId>| assigned.contains(&COMPUTING_PARTITION);
        if self.deps.assigned.wait_for(is_ours).await.is_err() {
            // The coordinator has ended: the process stops.
            std::future::pending::<()>().await;
        }
        let started = Instant::now();
        self.update(now_ms()).await;
        let pause = INTERVAL.max(started.elapsed() * MAX_BUSY_SHARE);
        let lost = self.deps.assigned.wait_for(|assigned| !is_ours(assigned));
        if tokio::time::timeout(pause, lost).await.is_ok() {
            self.deps.metrics.clear(false);
        }
    }

    /// Computes all values once.
    async fn update(&self, now_ms: u64) {
        let computed = tokio::time::timeout(COMPUTE_TIMEOUT, self.compute(now_ms)).await;
        match computed.unwrap_or(Err(NotComputed::TimedOut)) {
            Ok(summaries) => self.deps.metrics.set(&summaries),
            Err(error) => {
                self.deps.metrics.clear(true);
                tracing::warn!(%error, "failed to compute the metrics of signals");
            }
        }
    }

    async fn compute(&self, now_ms: u64) -> Result<Vec<(BudgetId, SignalSummary)>, NotComputed> {
        let Some(window) = SummaryWindow::new(now_ms, 1) else { return Ok(Vec::new()) };
        let catalog = self.deps.definitions.catalog();
        let mut folds: HashMap<BudgetId, SummaryFold> = HashMap::new();
        let mut batches =
            self.deps.signals.read(SignalQuery { budget: None, accepted_ms: window.read_ms() });
        while let Some(batch) = batches.recv().await {
            for signal in &batch?.signals {
                if let Some(fold) = folds.get_mut(&signal.budget) {
                    fold.add(signal);
                } else if folds.len() < MAX_BUDGETS && catalog.get(signal.budget.as_str()).is_some()
                {
                    let mut fold = SummaryFold::new(window, BOUNDS);
                    fold.add(signal);
                    folds.insert(signal.budget.clone(), fold);
                }
            }
            if folds.values().map(SummaryFold::known_people).sum::<usize>() > MAX_PEOPLE {
                return Err(NotComputed::TooManyPeople);
            }
            if folds.values().map(SummaryFold::known_members).sum::<usize>() > MAX_MEMBERS {
                return Err(NotComputed::TooManyMembers);
            }
        }
        Ok(folds.into_iter().map(|(budget, fold)| (budget, fold.finish())).collect())
    }
}
