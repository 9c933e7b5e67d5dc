//! The cache: a copy of the committed totals for readers, moved forward only, and news of every move.

pub mod memory;
pub mod redis;

use async_trait::async_trait;
use schemas::{BudgetId, CombinedTotals, PartitionCount, PartitionTotals};
use tokio::sync::broadcast;

/// The cache did not answer, or holds nonsense. Readers go on to the next tier; owners publish again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the cache did not answer: {0}")]
pub struct CacheError(pub String);

/// What a subscriber hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CacheUpdate {
    /// The budget's aggregate has moved.
    Moved(BudgetId),
    /// News may be missed from here on: whatever is held is as old as it is.
    Interrupted,
    /// News comes again: read whatever is held anew.
    Resumed,
}

/// Where the copy rests.
#[async_trait]
pub trait Cache: Send + Sync + 'static {
    /// Takes over what an owner has committed of one budget, all of it of one generation. Forward only: what is older
    /// than what the cache has changes nothing. The aggregate moves once every partition of the generation is there.
    async fn publish(
        &self,
        budget: &BudgetId,
        count: PartitionCount,
        partitions: &[PartitionTotals],
    ) -> Result<(), CacheError>;

    /// The aggregates of several budgets in one round trip; `None` for each that is not whole.
    async fn read(&self, budgets: &[BudgetId]) -> Result<Vec<Option<CombinedTotals>>, CacheError>;

    /// News from now on. A subscriber that falls behind (`RecvError::Lagged`) must treat it as a gap.
    fn subscribe(&self) -> broadcast::Receiver<CacheUpdate>;
}
