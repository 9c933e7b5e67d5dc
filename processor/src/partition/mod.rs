//! One partition's life under one owner: claimed, restored, folded, committed, released.

mod actor;
mod claim;
mod commit;
mod letters;
mod load;
mod pace;
mod progress;
mod restore;
mod rows;
mod storm;

use std::time::Duration;

pub use actor::{Partition, PartitionParts};
pub use claim::{ClaimError, claim};
pub use pace::Limits;
pub use progress::Progress;
pub(crate) use restore::matches_mark;
pub use restore::{HaltReason, Resume, check_log};
pub use storm::{Storm, StormLimits};

/// Before what failed is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// Why a partition's owner stopped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Ended {
    /// It was told to, and has committed what it had folded.
    #[error("released")]
    Released,
    /// Another owner has claimed the partition. Join the group again.
    #[error("fenced by another owner")]
    Fenced,
    /// The store has lost commits that it had acknowledged. Join the group again, and fold them again.
    #[error("the store went back")]
    StoreWentBack,
    /// Going on could make wrong totals. Only an operator can help; other partitions go on.
    #[error("halted: {0}")]
    Halted(#[from] HaltReason),
}
