//! The last tier: counts all person rows, of all budgets in one scan.
//!
//! **Cost.** A scan reads every person row, whichever budgets are asked for. So at most one runs at a time for the
//! whole store, everybody gets its result, and the next one starts [`super::RECOUNT_INTERVAL`] after it has ended.
//! Above a configured number of rows a scan could not finish within its deadline: it stops there, and the tier is off
//! for [`TOO_LARGE_PAUSE`].
//!
//! **What a recount reflects.** Person rows are written after the commits, in batches, each person's separately. A
//! recount counts every row that was in the table when its bucket was read, and each person once, with one of their
//! committed allocations. The position of a partition is the highest offset of the budget's rows plus one; a row with
//! a lower offset may not have been written yet, and a repeated or dead-lettered submission moves no row. So a recount
//! is close to the committed totals, and equal once the rows have caught up. But two recounts at the same positions
//! may differ, and no recount guarantees that a certain submission is counted. Rows have no timestamp: `updated_at` is
//! null.

mod totals;

use std::sync::Arc;
use std::time::Duration;

use futures_util::{TryStreamExt, stream};
use parking_lot::Mutex;
use schemas::{BudgetId, CombinedTotals, PersonRow, buckets};
use storage::store::{PartitionRef, Store, StoreError};
use tokio::sync::watch;
use tokio::time::sleep;

use super::RECOUNT_INTERVAL;
use super::TierError;
use super::guard::Guard;
use super::memory::Memory;
use crate::active_generation::ActiveGenerationCache;
use crate::breaker::BreakerDecision;
use crate::no_answer::NoAnswer;
use crate::read_policy::Micros;
use totals::RecountTotals;

/// How long the tier is off after a scan found too many rows.
const TOO_LARGE_PAUSE: Duration = Duration::from_secs(600);
/// Maximum concurrent bucket reads. Enough to keep the store busy, few enough to leave capacity for commits.
const MAX_CONCURRENT_SCANS: usize = 16;

/// Runs recounts, one at a time.
pub struct Recounts {
    max_people: u64,
    store: Arc<dyn Store>,
    generation: Arc<ActiveGenerationCache>,
    memory: Arc<Memory>,
    guard: Arc<Guard>,
    running: Mutex<Option<RunningRecount>>,
}

type RecountResult = Result<Arc<Recount>, NoAnswer>;

/// A recount that runs, or has ended and is still used.
#[derive(Clone)]
struct RunningRecount {
    /// Whether it tests a tier whose circuit breaker was open.
    is_probe: bool,
    result: watch::Receiver<Option<RecountResult>>,
}

/// The totals of all budgets, counted from the person rows.
pub struct Recount {
    /// The moment before the scan.
    pub queried_at: Micros,
    /// `None` before the first generation.
    totals: Option<RecountTotals>,
}

impl Recount {
    /// Returns a budget's totals; `None` if its rows are damaged.
    pub fn totals(&self, budget: &BudgetId) -> Option<CombinedTotals> {
        self.totals.as_ref()?.combined(budget)
    }
}

impl Recounts {
    /// Creates the recounts of the store's active generation, of at most `max_people` rows.
    pub fn new(
        max_people: u64,
        store: Arc<dyn Store>,
        generation: Arc<ActiveGenerationCache>,
        memory: Arc<Memory>,
        guard: Arc<Guard>,
    ) -> Self {
        Self { max_people, store, generation, memory, guard, running: Mutex::default() }
    }

    /// Returns the recount that runs or has just ended, or starts one.
    ///
    /// Waits for a probe of the store only if `wait_for_probe`.
    ///
    /// # Errors
    /// [`NoAnswer::TooManyPeople`] while the tier is off; [`NoAnswer::Unavailable`] when the store cannot be read.
    pub async fn latest(self: &Arc<Self>, wait_for_probe: bool) -> RecountResult {
        let RunningRecount { is_probe, mut result } = self.join()?;
        if is_probe && !wait_for_probe && result.borrow().is_none() {
            return Err(NoAnswer::Unavailable);
        }
        match result.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(result)) => result.clone(),
            _ => Err(NoAnswer::Unavailable),
        }
    }

    /// Returns whether the latest recount found too many rows.
    pub fn is_too_large(&self) -> bool {
        let running = self.running.lock();
        running.as_ref().is_some_and(|running| {
            matches!(&*running.result.borrow(), Some(Err(NoAnswer::TooManyPeople { .. })))
        })
    }

    fn join(self: &Arc<Self>) -> Result<RunningRecount, NoAnswer> {
        let mut running = self.running.lock();
        if let Some(running) = &*running {
            return Ok(running.clone());
        }
        let decision = self.guard.admit();
        if decision == BreakerDecision::Refused {
            return Err(NoAnswer::Unavailable);
        }
        let (sender, result) = watch::channel(None);
        let started = RunningRecount { is_probe: decision == BreakerDecision::Probe, result };
        *running = Some(started.clone());
        // In a task of its own, so that the scan outlives the reader that started it.
        tokio::spawn(Arc::clone(self).run(decision, sender));
        Ok(started)
    }

    async fn run(
        self: Arc<Self>,
        decision: BreakerDecision,
        sender: watch::Sender<Option<RecountResult>>,
    ) {
        let ended = EndedOnDrop(&self);
        let queried_at = self.memory.now();
        let result = match self.guard.run(decision, self.count()).await {
            Ok(Ok(totals)) => Ok(Arc::new(Recount { queried_at, totals })),
            Ok(Err(TooManyRows)) => {
                let max_people = self.max_people;
                tracing::warn!(max_people, "recount stopped, there are too many people");
                Err(NoAnswer::TooManyPeople { max_people })
            }
            Err(_) => Err(NoAnswer::Unavailable),
        };
        let used_for = match &result {
            Ok(_) => RECOUNT_INTERVAL,
            Err(NoAnswer::TooManyPeople { .. }) => TOO_LARGE_PAUSE,
            Err(_) => {
                // End before sending: a reader that tries again must start a new recount.
                drop(ended);
                sender.send_replace(Some(result));
                return;
            }
        };
        sender.send_replace(Some(result));
        sleep(used_for).await;
    }

    /// Counts the person rows of the active generation.
    async fn count(&self) -> Result<Result<Option<RecountTotals>, TooManyRows>, TierError> {
        let active = self.generation.get().await.map_err(unavailable)?;
        let Some(active) = active else { return Ok(Ok(None)) };
        let counting = Mutex::new(Counting { rows: 0, totals: RecountTotals::new(active) });
        let scans = active.partitions.partitions().flat_map(|partition| {
            let partition = PartitionRef { generation: active.term.generation, partition };
            buckets().map(move |bucket| Ok((partition, bucket)))
        });
        let scanned = stream::iter(scans)
            .try_for_each_concurrent(MAX_CONCURRENT_SCANS, async |(partition, bucket)| {
                let mut count = |row: PersonRow| {
                    let mut counting = counting.lock();
                    counting.rows += 1;
                    if counting.rows <= self.max_people {
                        counting.totals.count(partition.partition, row);
                    }
                };
                self.store.read_people(partition, bucket, &mut count).await?;
                let rows = counting.lock().rows;
                if rows > self.max_people { Err(ScanEnd::TooManyRows) } else { Ok(()) }
            })
            .await;
        match scanned {
            Ok(()) => {
                let counting = counting.into_inner();
                Ok(Ok(Some(counting.totals)))
            }
            Err(ScanEnd::TooManyRows) => Ok(Err(TooManyRows)),
            Err(ScanEnd::Failed(error)) => Err(unavailable(error)),
        }
    }
}

struct Counting {
    rows: u64,
    totals: RecountTotals,
}

/// There are more person rows than a recount may read.
struct TooManyRows;

/// Why a scan ended early.
enum ScanEnd {
    TooManyRows,
    Failed(StoreError),
}

impl From<StoreError> for ScanEnd {
    fn from(error: StoreError) -> Self {
        Self::Failed(error)
    }
}

/// Lets the next recount start when dropped, also after a panic.
struct EndedOnDrop<'a>(&'a Recounts);

impl Drop for EndedOnDrop<'_> {
    fn drop(&mut self) {
        *self.0.running.lock() = None;
    }
}

fn unavailable(error: StoreError) -> TierError {
    TierError(error.to_string())
}
