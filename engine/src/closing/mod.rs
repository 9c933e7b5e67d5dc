//! Closes budgets and reopens them: writes the fence of a budget whose closing time has passed, appends the markers that
//! follow from fences, and completes reopenings.
//!
//! Nothing here is exactly-once, and nothing needs to be: a marker that is appended twice, or late by an owner that was
//! stalled, has no effect (`schemas::Closing`). What must hold is the order: a marker is appended only after its fence was
//! read from the control topic itself. An acknowledged submission has seen no fence there afterwards, so it stands in front
//! of the marker. Clocks decide when a budget closes, and never what counts.
//!
//! | file | owns |
//! |---|---|
//! | `decide` | which budgets are due, and which markers a partition lacks; pure |
//! | `metrics` | how many budgets are not final although they should be |

mod decide;
mod metrics;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use runtime::clock::now_ms;
use schemas::{
    Budget, BudgetId, ClosingFence, ClosingState, GenerationRegistry, Marker, PartitionId,
    RecordEncoder, SubmissionId, Term,
};
use storage::control::{
    BudgetDefinitions, ChangeRefused, DefinitionError, close, complete_reopening,
};
use storage::log::{LogWriter, NewRecord};
use storage::store::{Checkpoints, Store};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use decide::{DueTimes, lacking_partitions};
pub use metrics::ClosingMetrics;

/// How often definitions and totals are looked at.
const TICK_INTERVAL: Duration = Duration::from_millis(500);
/// Time for a marker to be folded and committed, after which it is appended again.
const MARKER_RETRY_INTERVAL: Duration = Duration::from_secs(5);
/// Budgets that are closed before markers are looked at again: each takes a transaction of the control topic.
const MAX_CLOSED_PER_TICK: usize = 8;
/// Budgets whose totals are read at once.
const BUDGETS_PER_READ: usize = 50;
/// The partition whose process closes budgets and completes reopenings, so that processes do not contend for it.
const DECIDING_PARTITION: PartitionId = PartitionId(0);

/// Dependencies of the closer.
pub struct ClosingDeps {
    /// Budget definitions, which hold the fences.
    pub definitions: Arc<dyn BudgetDefinitions>,
    /// The committed totals.
    pub store: Arc<dyn Store>,
    /// Appends markers to the active log.
    pub writer: Arc<dyn LogWriter>,
    /// The generation registry.
    pub registry: watch::Receiver<GenerationRegistry>,
    /// The partitions of the active generation that are assigned to this process.
    pub assigned: watch::Receiver<BTreeSet<PartitionId>>,
    /// How many budgets are not final although they should be.
    pub metrics: ClosingMetrics,
    /// The wall clock.
    pub clock: fn() -> Timestamp,
}

/// Closes and reopens budgets, for the partitions of one process.
pub struct BudgetCloser {
    deps: ClosingDeps,
    due: DueTimes,
    /// When markers were appended that have not been seen in the totals yet.
    appended: BTreeMap<(BudgetId, PartitionId, u64), Instant>,
    /// Fences that every partition of a generation has folded.
    complete: BTreeMap<BudgetId, (Term, ClosingFence)>,
}

/// Why a step failed; it is tried again at the next tick.
#[derive(Debug, thiserror::Error)]
enum ClosingError {
    #[error(transparent)]
    Definitions(#[from] DefinitionError),
    #[error(transparent)]
    Store(#[from] storage::store::StoreError),
}

impl BudgetCloser {
    /// Creates a closer.
    pub fn new(deps: ClosingDeps) -> Self {
        let (appended, complete) = (BTreeMap::new(), BTreeMap::new());
        Self { deps, due: DueTimes::default(), appended, complete }
    }

    /// Runs until `stop` is cancelled.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut ticks = interval(TICK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            if stop.run_until_cancelled(self.tick()).await.is_none() {
                return;
            }
        }
    }

    async fn tick(&mut self) {
        let decides = self.deps.assigned.borrow().contains(&DECIDING_PARTITION);
        let now = (self.deps.clock)();
        let catalog = self.deps.definitions.catalog();
        let due = self.due.due(catalog.iter().map(AsRef::as_ref), now, Instant::now());
        if decides {
            for budget in due.iter().take(MAX_CLOSED_PER_TICK) {
                self.close(budget).await;
            }
        }
        if let Err(error) = self.follow_fences(decides).await {
            tracing::warn!(%error, "failed to follow the fences of closing budgets, retrying");
        }
        let overdue = catalog.iter().filter(|budget| {
            let has_closed = budget.closes_at.is_some_and(|closes_at| closes_at <= now);
            has_closed && !self.is_complete(budget)
        });
        // One process reports for all.
        self.deps.metrics.set_overdue(if decides { overdue.count() } else { 0 });
    }

    /// Writes the fence of a budget.
    async fn close(&self, budget: &Budget) {
        let decide = |current: Option<&Budget>| close(current, budget);
        match self.deps.definitions.change(&budget.id, &decide).await {
            Ok(closed) if closed.is_fenced() => {
                tracing::info!(budget = %budget.id, revision = closed.revision, "budget closed");
            }
            Ok(_) | Err(DefinitionError::Refused(ChangeRefused::Unknown)) => {}
            Err(error) => {
                tracing::warn!(budget = %budget.id, %error, "failed to close a budget, retrying");
            }
        }
    }

    fn is_complete(&self, budget: &Budget) -> bool {
        let complete = self.complete.get(&budget.id);
        let term = self.deps.registry.borrow().term();
        budget.closing.is_some_and(|fence| complete == Some(&(term, fence)))
    }

    /// Appends the markers that this process's partitions lack, and completes reopenings.
    async fn follow_fences(&mut self, decides: bool) -> Result<(), ClosingError> {
        let catalog = self.deps.definitions.catalog();
        let pends = |budget: &&Arc<Budget>| budget.is_fenced() && !self.is_complete(budget);
        if !catalog.iter().any(|budget| pends(&budget)) {
            return Ok(());
        }
        // From the topic itself: the catalog may have a fence that others cannot see yet.
        let confirmed = self.deps.definitions.confirmed().await?;
        let pending: Vec<Arc<Budget>> = confirmed.iter().filter(pends).cloned().collect();
        for some in pending.chunks(BUDGETS_PER_READ) {
            self.follow_fences_of(some, decides).await?;
        }
        Ok(())
    }

    async fn follow_fences_of(
        &mut self,
        pending: &[Arc<Budget>],
        decides: bool,
    ) -> Result<(), ClosingError> {
        let ids: Vec<BudgetId> = pending.iter().map(|budget| budget.id.clone()).collect();
        let (term, count) = {
            let registry = self.deps.registry.borrow();
            (registry.term(), registry.active.log.partitions)
        };
        let store: &dyn Checkpoints = self.deps.store.as_ref();
        let summaries = store.summaries(term.generation, count, &ids).await?;
        let assigned = self.deps.assigned.borrow().clone();
        let mut records = Vec::new();
        for (budget, summary) in pending.iter().zip(summaries) {
            let Some(fence) = budget.closing else { continue };
            let Some(marker) = fence.marker() else { continue };
            let Ok(summary) = summary else { continue };
            let lacking = lacking_partitions(&summary, marker.revision);
            if lacking.is_empty() {
                self.complete(budget, fence, term, decides).await;
                continue;
            }
            let owned = lacking.into_iter().filter(|partition| assigned.contains(partition));
            for partition in owned {
                if self.is_due(&budget.id, partition, marker) {
                    let key = Marker::key(&budget.id, partition, count);
                    let id = SubmissionId(uuid::Uuid::new_v4());
                    let value =
                        RecordEncoder::default().encode_marker(&budget.id, marker, id, now_ms());
                    records.push(NewRecord { key, value });
                }
            }
        }
        self.append(records).await;
        Ok(())
    }

    /// Notes that every partition has folded its marker, and opens a budget that was being reopened.
    async fn complete(&mut self, budget: &Budget, fence: ClosingFence, term: Term, decides: bool) {
        self.appended.retain(|(id, _, _), _| *id != budget.id);
        if fence.state == ClosingState::Reopening {
            if !decides {
                return;
            }
            let decide = |current: Option<&Budget>| complete_reopening(current, fence);
            if let Err(error) = self.deps.definitions.change(&budget.id, &decide).await {
                tracing::warn!(budget = %budget.id, %error, "failed to reopen a budget, retrying");
                return;
            }
            tracing::info!(budget = %budget.id, "budget reopened");
        } else {
            tracing::info!(budget = %budget.id, "every partition has folded its close marker");
        }
        self.complete.insert(budget.id.clone(), (term, fence));
    }

    /// Whether a marker is appended now, and not in flight since a moment ago. Notes that it is.
    fn is_due(&mut self, budget: &BudgetId, partition: PartitionId, marker: Marker) -> bool {
        let now = Instant::now();
        let key = (budget.clone(), partition, marker.revision);
        let is_in_flight = self
            .appended
            .get(&key)
            .is_some_and(|at| now.duration_since(*at) < MARKER_RETRY_INTERVAL);
        if !is_in_flight {
            self.appended.insert(key, now);
        }
        !is_in_flight
    }

    async fn append(&self, records: Vec<NewRecord>) {
        if records.is_empty() {
            return;
        }
        let count = records.len();
        let appended = self.deps.writer.append(records).await;
        let failed = appended.iter().find_map(|result| result.as_ref().err());
        match failed {
            None => tracing::info!(markers = count, "markers appended"),
            Some(error) => tracing::warn!(%error, "failed to append markers, retrying"),
        }
    }
}

#[cfg(test)]
mod protocol_tests;
