//! Reads the history of a budget: people and sums at full minutes, hours or days.
//!
//! Reads are limited, guarded by a deadline and a circuit breaker, and kept for a moment, since most readers ask for
//! the same instants.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;
use schemas::{BudgetId, HistoryInstant, HistoryStep, InstantTotals};
use storage::store::{Store, StoreError, read_history};

use crate::active_generation::ActiveGenerationCache;
use crate::breaker::BreakerDecision;
use crate::config::ApiConfig;
use crate::metrics::ApiMetrics;
use crate::no_answer::NoAnswer;
use crate::read_limit::ReadLimit;
use crate::tiers::guard::Guard;
use crate::tiers::{TierError, log_damaged};

/// Delay before an instant is served, so that every record accepted before it is in the log, and folded unless the
/// processors lag.
pub const SETTLING_DELAY: Duration = Duration::from_secs(30);
/// Maximum instants in one read.
pub const MAX_INSTANTS: u32 = 1_000;
/// Maximum points in one read: of each instant, every partition has one.
const MAX_POINTS: u32 = 200_000;

/// The label of history reads in metrics and logs.
const TIER: &str = "history";
/// Deadline of one read, which reads every partition twice.
const READ_DEADLINE: Duration = Duration::from_secs(2);
/// Maximum concurrent reads; further ones wait, at most for `READ_DEADLINE`.
const MAX_CONCURRENT_READS: usize = 4;
/// How long a read is kept for other readers.
const CACHE_TTL: Duration = Duration::from_secs(2);
/// Maximum memory of all kept reads, in bytes.
const MAX_CACHE_BYTES: u64 = 16 << 20;

/// Which part of a history is read.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HistorySection {
    /// The budget.
    pub budget: BudgetId,
    /// The distance between instants.
    pub step: HistoryStep,
    /// The instants, at most [`MAX_INSTANTS`].
    pub instants: Range<HistoryInstant>,
}

/// Reads histories.
pub struct HistoryReader {
    store: Arc<dyn Store>,
    generation: Arc<ActiveGenerationCache>,
    guard: Guard,
    limit: ReadLimit,
    kept: Cache<HistorySection, Arc<Vec<InstantTotals>>>,
}

impl HistoryReader {
    /// Creates a reader of `store`.
    pub fn new(
        config: &ApiConfig,
        store: Arc<dyn Store>,
        generation: Arc<ActiveGenerationCache>,
        metrics: &ApiMetrics,
    ) -> Self {
        let overloaded = metrics.reads.with_label_values(&[TIER, "overloaded"]);
        Self {
            store,
            generation,
            guard: Guard::new(TIER, READ_DEADLINE, config.breaker(), metrics),
            limit: ReadLimit::new(MAX_CONCURRENT_READS, READ_DEADLINE, overloaded),
            kept: Cache::builder()
                .max_capacity(MAX_CACHE_BYTES)
                .weigher(|_, points: &Arc<Vec<InstantTotals>>| bytes_of(points))
                .time_to_live(CACHE_TTL)
                .build(),
        }
    }

    /// Returns how many instants one read may have, which depends on the partitions.
    pub async fn max_instants(&self) -> u32 {
        let active = self.generation.get().await.ok().flatten();
        let partitions = active.map_or(1, |active| active.partitions.get());
        (MAX_POINTS / partitions.max(1)).clamp(1, MAX_INSTANTS)
    }

    /// Reads the instants of a section at which everything is known, in order. Without those before the first
    /// allocation.
    ///
    /// # Errors
    /// When the store is unavailable or overloaded, or holds damaged data.
    pub async fn read(
        &self,
        section: &HistorySection,
    ) -> Result<Arc<Vec<InstantTotals>>, NoAnswer> {
        if let Some(kept) = self.kept.get(section) {
            return Ok(kept);
        }
        let _permit = self.limit.acquire().await?;
        // Another reader may have read it while this one waited.
        if let Some(kept) = self.kept.get(section) {
            return Ok(kept);
        }
        let decision = self.guard.admit();
        if decision == BreakerDecision::Refused {
            return Err(NoAnswer::Unavailable);
        }
        let read = self.guard.run(decision, self.read_store(section)).await;
        let points = Arc::new(read.map_err(|_| NoAnswer::Unavailable)??);
        self.kept.insert(section.clone(), Arc::clone(&points));
        Ok(points)
    }

    /// Reads all partitions. The inner error is of damaged or missing data, which is no failure of the store.
    async fn read_store(
        &self,
        section: &HistorySection,
    ) -> Result<Result<Vec<InstantTotals>, NoAnswer>, TierError> {
        let unavailable = |error: StoreError| TierError(error.to_string());
        // No processor has started yet.
        let Some(active) = self.generation.get().await.map_err(unavailable)? else {
            return Ok(Ok(Vec::new()));
        };
        let HistorySection { budget, step, instants } = section;
        let (store, generation) = (self.store.as_ref(), active.term.generation);
        let instants = instants.clone();
        match read_history(store, generation, active.partitions, budget, *step, instants).await {
            Ok(points) => Ok(points.ok_or(NoAnswer::Unavailable)),
            Err(error @ StoreError::Unavailable(_)) => Err(unavailable(error)),
            Err(error @ StoreError::Corrupt(_)) => {
                log_damaged(budget, &error);
                Ok(Err(NoAnswer::Unavailable))
            }
        }
    }
}

fn bytes_of(points: &[InstantTotals]) -> u32 {
    let bytes = |point: &InstantTotals| {
        size_of::<InstantTotals>() + size_of_val(point.totals.basis_points.as_slice())
    };
    u32::try_from(points.iter().map(bytes).sum::<usize>()).unwrap_or(u32::MAX)
}
