//! The cache: a copy of committed totals for readers, which only moves forward, and notifications of its changes.

pub mod memory;
pub mod redis;

use async_trait::async_trait;
use schemas::{
    BudgetId, CombinedTotals, PartitionCount, PartitionId, PartitionTotals, Position, Term,
};
use tokio::sync::broadcast;

/// Updates that a slow subscriber may be behind before it is reported as lagging.
const MAX_PENDING_UPDATES: usize = 1_024;

/// The cache is unavailable, or holds damaged data. Readers query the next tier; owners publish again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the cache is unavailable: {0}")]
pub struct CacheError(pub String);

/// A notification to a subscriber.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CacheUpdate {
    /// The budget's aggregate has changed.
    Changed(BudgetId),
    /// Changes may be missed from now on: totals held by the subscriber may be stale.
    Interrupted,
    /// Changes are reported again: the subscriber must read its totals anew.
    Resumed,
}

/// Stores a copy of committed totals.
#[async_trait]
pub trait Cache: Send + Sync + 'static {
    /// Publishes an owner's committed totals of one budget, all of one generation. Older totals than the cache's change
    /// nothing. The aggregate changes once the cache has every partition of the generation.
    async fn publish(
        &self,
        budget: &BudgetId,
        count: PartitionCount,
        partitions: &[PartitionTotals],
    ) -> Result<(), CacheError>;

    /// Returns those of the partitions whose totals are missing or older than these positions. Restores an aggregate
    /// that was lost while the totals of all partitions were kept.
    ///
    /// Owners compare positions regularly, so that a cache that lost data heals and nothing is sent to one that did
    /// not.
    async fn outdated_partitions(
        &self,
        budget: &BudgetId,
        term: Term,
        count: PartitionCount,
        positions: &[(PartitionId, Position)],
    ) -> Result<Vec<PartitionId>, CacheError>;

    /// Reads the aggregates of several budgets in one round trip; `None` for each that is missing or incomplete.
    async fn read(&self, budgets: &[BudgetId]) -> Result<Vec<Option<CombinedTotals>>, CacheError>;

    /// Subscribes to changes. A subscriber that falls behind (`RecvError::Lagged`) must treat it as an interruption.
    fn subscribe(&self) -> broadcast::Receiver<CacheUpdate>;
}
