//! Closes budgets and reopens them: writes the fence of a budget whose closing time has passed, appends the markers
//! that follow from fences, and completes reopenings.
//!
//! Nothing here is exactly-once, and nothing needs to be: a marker that is appended twice, or late by an owner that was
//! stalled, has no effect (`schemas::Closing`). What must hold is the order. A marker is appended only after its fence
//! was read from the control topic. A submission is acknowledged only if a read of the control topic after its append
//! finds no fence. So an acknowledged submission stands in front of the marker. Clocks decide when a budget closes, and
//! never what counts.
//!
//! | file | owns |
//! |---|---|
//! | `decide` | which budgets are due, and which markers a partition lacks; pure |
//! | `retries` | when a step that has failed is due again; pure |
//! | `complete` | which fences every partition has folded, until they are to be read again; pure |
//! | `pending` | how long budgets have waited to become final, or to be open again; pure |
//! | `report` | what the metrics say |
//! | `metrics` | how many budgets are not final although they should be, and for how long |

mod complete;
mod decide;
mod metrics;
mod pending;
mod report;
mod retries;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use jiff::Timestamp;
use runtime::clock::now_ms;
use schemas::{
    Budget, BudgetId, ClosingFence, ClosingState, GenerationRegistry, Marker, PartitionId,
    RecordEncoder, SubmissionId, Term,
};
use storage::control::{
    BudgetDefinitions, Catalog, ChangeRefused, ControlTopicError, close, complete_reopening,
};
use storage::log::{LogWriter, NewRecord};
use storage::store::{Checkpoints, Store};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use complete::CompleteFences;
use decide::{DueTimes, lacking_partitions};
pub use metrics::ClosingMetrics;
use pending::Reopenings;
use retries::{Retries, Step};

/// How often definitions and totals are looked at.
const TICK_INTERVAL: Duration = Duration::from_millis(500);
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
    complete: CompleteFences,
    reopenings: Reopenings,
    retries: Retries,
    /// Budgets that are to be closed or reopened, and that this release may not change, with the revision that was
    /// logged.
    not_changeable: BTreeMap<BudgetId, u64>,
}

/// Why a step failed; it is tried again after a delay.
#[derive(Debug, thiserror::Error)]
enum ClosingError {
    #[error(transparent)]
    Definitions(#[from] ControlTopicError),
    #[error(transparent)]
    Store(#[from] storage::store::StoreError),
    #[error("failed to append markers: {0}")]
    Append(#[from] storage::log::AppendError),
}

impl BudgetCloser {
    /// Creates a closer.
    pub fn new(deps: ClosingDeps) -> Self {
        let (due, complete) = (DueTimes::default(), CompleteFences::default());
        let (reopenings, retries) = (Reopenings::default(), Retries::default());
        Self { deps, due, complete, reopenings, retries, not_changeable: BTreeMap::new() }
    }

    /// Runs until `stop` is cancelled.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut ticks = interval(TICK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            // A panic must not stop the process and its folding: closing is retried, and the overdue gauge is set.
            let ticked = AssertUnwindSafe(self.tick()).catch_unwind();
            match stop.run_until_cancelled(ticked).await {
                None => return,
                Some(Ok(())) => {}
                Some(Err(_)) => {
                    tracing::error!("budget closer panicked, retrying");
                    self.deps.metrics.set_overdue(1);
                }
            }
        }
    }

    async fn tick(&mut self) {
        let (decides, assignment_changed) = {
            let changed = self.deps.assigned.has_changed().unwrap_or(false);
            (self.deps.assigned.borrow_and_update().contains(&DECIDING_PARTITION), changed)
        };
        if assignment_changed {
            // A partition may come from a release that does not keep the marker with the totals.
            self.complete.recheck();
        }
        let now = (self.deps.clock)();
        let catalog = self.deps.definitions.catalog();
        let due = self.due.due(catalog.iter().map(AsRef::as_ref), now, Instant::now());
        self.forget_ended_steps(&catalog, &due);
        if decides {
            self.close_due(&catalog, &due).await;
        }
        self.follow_fences(decides).await;
        self.report(decides, now);
    }

    fn forget_ended_steps(&mut self, catalog: &Catalog, due: &[&Budget]) {
        let is_due = |id: &BudgetId| due.iter().any(|budget| budget.id == *id);
        let is_fenced = |id: &BudgetId| catalog.get(id.as_str()).is_some_and(|it| it.is_fenced());
        self.retries.retain(|step| match step {
            Step::FollowFences => true,
            Step::Close(id) => is_due(id),
            Step::CompleteReopening(id) | Step::AppendMarker(id, ..) => is_fenced(id),
        });
        self.not_changeable.retain(|id, _| is_due(id) || is_fenced(id));
        self.complete.retain(|id| catalog.get(id.as_str()).is_some());
    }

    /// Closes some of the budgets that are due.
    async fn close_due(&mut self, catalog: &Catalog, due: &[&Budget]) {
        let mut attempts = 0;
        for budget in due {
            if self.is_changeable(catalog, budget)
                && attempts < MAX_CLOSED_PER_TICK
                && self.retries.is_due(&Step::Close(budget.id.clone()), Instant::now())
            {
                attempts += 1;
                self.close(budget).await;
            }
        }
    }

    /// Whether this release may change a definition. If not, only a newer release can, and asking the control topic
    /// again and again would not help: an operator has to complete the update.
    fn is_changeable(&mut self, catalog: &Catalog, budget: &Budget) -> bool {
        let Err(reason) = catalog.changeable(budget.id.as_str()) else {
            self.not_changeable.remove(&budget.id);
            return true;
        };
        let revision = budget.revision;
        if self.not_changeable.insert(budget.id.clone(), revision) != Some(revision) {
            tracing::error!(budget = %budget.id, revision, %reason, "budget cannot be closed or reopened by this release");
        }
        false
    }

    /// Writes the fence of a budget.
    async fn close(&mut self, budget: &Budget) {
        let step = Step::Close(budget.id.clone());
        let decide = |current: Option<&Budget>| close(current, budget);
        match self.deps.definitions.change(&budget.id, &decide).await {
            Ok(closed) if closed.is_fenced() => {
                self.retries.succeeded(&step);
                tracing::info!(budget = %budget.id, revision = closed.revision, "budget closed");
            }
            Ok(_) | Err(ControlTopicError::Refused(ChangeRefused::Unknown)) => {
                self.retries.succeeded(&step);
            }
            Err(error) => {
                let retry_in_ms = self.failed(step);
                tracing::warn!(budget = %budget.id, %error, retry_in_ms, "failed to close a budget, retrying");
            }
        }
    }

    /// Records a failed attempt, and returns the delay before the next one in milliseconds.
    fn failed(&mut self, step: Step) -> u64 {
        self.retries.attempted(step, Instant::now()).as_millis() as u64
    }

    /// Appends the markers that this process's partitions lack, and completes reopenings.
    async fn follow_fences(&mut self, decides: bool) {
        if !self.retries.is_due(&Step::FollowFences, Instant::now()) {
            return;
        }
        match self.try_to_follow_fences(decides).await {
            Ok(()) => self.retries.succeeded(&Step::FollowFences),
            Err(error) => {
                let retry_in_ms = self.failed(Step::FollowFences);
                tracing::warn!(%error, retry_in_ms, "failed to follow the fences of closing budgets, retrying");
            }
        }
    }

    async fn try_to_follow_fences(&mut self, decides: bool) -> Result<(), ClosingError> {
        let catalog = self.deps.definitions.catalog();
        let (term, now) = (self.deps.registry.borrow().term(), Instant::now());
        let pends = |budget: &&Arc<Budget>| {
            budget.is_fenced() && !self.complete.is_current(budget, term, now)
        };
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
        let mut markers = Vec::new();
        for (budget, summary) in pending.iter().zip(summaries) {
            let Some(fence) = budget.closing else { continue };
            let Some(marker) = fence.marker() else { continue };
            let Ok(summary) = summary else { continue };
            let lacking = lacking_partitions(&summary, marker.revision);
            if lacking.is_empty() {
                self.complete(budget, fence, term, decides).await;
                continue;
            }
            self.complete.remove(budget, term);
            let owned = lacking.into_iter().filter(|partition| assigned.contains(partition));
            for partition in owned {
                let step = Step::AppendMarker(budget.id.clone(), partition, marker.revision);
                if self.retries.is_due(&step, Instant::now()) {
                    let key = Marker::key(&budget.id, partition, count);
                    let id = SubmissionId(uuid::Uuid::new_v4());
                    let value =
                        RecordEncoder::default().encode_marker(&budget.id, marker, id, now_ms());
                    markers.push((step, NewRecord { key, value }));
                }
            }
        }
        self.append(markers).await
    }

    /// Notes that every partition has folded its marker, and opens a budget that was being reopened.
    async fn complete(&mut self, budget: &Budget, fence: ClosingFence, term: Term, decides: bool) {
        self.retries.retain(|step| !matches!(step, Step::AppendMarker(id, ..) if *id == budget.id));
        if fence.state == ClosingState::Reopening
            && !self.complete_reopening(budget, fence, decides).await
        {
            return;
        }
        if self.complete.insert(&budget.id, fence, term, Instant::now()) {
            let state = if fence.state == ClosingState::Reopening { "reopened" } else { "closed" };
            tracing::info!(budget = %budget.id, state, "every partition has folded the budget's marker");
        }
    }

    /// Opens a budget again. Returns whether it is open.
    async fn complete_reopening(
        &mut self,
        budget: &Budget,
        fence: ClosingFence,
        decides: bool,
    ) -> bool {
        let step = Step::CompleteReopening(budget.id.clone());
        let catalog = self.deps.definitions.catalog();
        if !decides
            || !self.is_changeable(&catalog, budget)
            || !self.retries.is_due(&step, Instant::now())
        {
            return false;
        }
        let decide = |current: Option<&Budget>| complete_reopening(current, fence);
        let changed = self.deps.definitions.change(&budget.id, &decide).await;
        match changed {
            Ok(_) => self.retries.succeeded(&step),
            Err(error) => {
                let retry_in_ms = self.failed(step);
                tracing::warn!(budget = %budget.id, %error, retry_in_ms, "failed to reopen a budget, retrying");
                return false;
            }
        }
        true
    }

    /// Appends markers. Those that are appended get time to be folded and committed before they are appended again.
    ///
    /// # Errors
    /// When one is not appended.
    async fn append(&mut self, markers: Vec<(Step, NewRecord)>) -> Result<(), ClosingError> {
        if markers.is_empty() {
            return Ok(());
        }
        let (steps, records): (Vec<Step>, Vec<NewRecord>) = markers.into_iter().unzip();
        let appended = self.deps.writer.append(records).await;
        let (now, mut failed) = (Instant::now(), None);
        for (step, outcome) in steps.into_iter().zip(appended) {
            match outcome {
                Ok(_) => {
                    self.retries.attempted(step, now);
                }
                Err(error) => failed = Some(error),
            }
        }
        match failed {
            None => {
                tracing::info!("markers appended");
                Ok(())
            }
            Some(error) => Err(ClosingError::Append(error)),
        }
    }
}

#[cfg(test)]
mod protocol_tests;
#[cfg(test)]
mod tests;
