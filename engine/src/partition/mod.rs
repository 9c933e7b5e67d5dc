//! One partition's life under one owner: claim, log check, restore, fold, commit, release.
//!
//! | file | owns |
//! |---|---|
//! | `claim` | takeover of the partition in the store: a new epoch |
//! | `log_check` | whether the log is still the one that was folded, and where to resume |
//! | `restore` | reading person rows back into memory, before the claim or after it |
//! | `actor` | the running owner: folding, committing, writing person rows |
//! | `commit` | one conditional commit, settled when its outcome is unknown |
//! | `history` | writing completed history points before the commit that passes them |
//! | `dead_letter_buffer`, `dead_letter_limit` | rejected records until their commit, and how many are too many |
//! | `person_rows` | writing changed person rows behind the commit |
//! | `pace` | when a commit or a round of person rows is due |
//! | `halt_reason` | why a partition halts |
//! | `progress` | positions that the rest of the process reads |
//!
//! Which partitions this process owns is decided by the `coordinator` module.

mod actor;
mod claim;
mod commit;
mod dead_letter_buffer;
mod dead_letter_limit;
mod halt_reason;
mod history;
mod log_check;
mod pace;
mod person_rows;
mod progress;
mod restore;

use std::time::Duration;

use backon::ConstantBuilder;
use schemas::{Offset, Position};

pub use actor::{PartitionDeps, PartitionOwner};
pub use claim::{ClaimError, claim};
pub use dead_letter_limit::{DeadLetterLimitExceeded, DeadLetterThresholds};
pub use halt_reason::HaltReason;
pub use log_check::{ResumePoint, check_log, matches_fingerprint};
pub use pace::PartitionLimits;
pub use progress::PartitionProgress;
pub use restore::{PreparedPeople, PreparedPeopleFault, prepare_people};

use crate::fold::InconsistentState;

/// Backoff of an owner whose backend is unavailable: constant, without an attempt limit.
const OWNER_RETRY: ConstantBuilder =
    ConstantBuilder::new().with_delay(Duration::from_millis(200)).without_max_times();

/// Why a partition's owner stopped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OwnerExit {
    /// The owner was asked to stop and has committed everything it folded.
    #[error("released")]
    Released,
    /// Another owner has claimed the partition. While the group assigns the partition to this process, it is claimed
    /// again after a delay.
    #[error("fenced by another owner")]
    Fenced,
    /// The generation was retired, and its data are deleted: the registry names the generation to fold instead.
    #[error("the generation was retired")]
    Retired,
    /// The store lost acknowledged commits. The partition is claimed again, and the lost records are folded again.
    #[error("the store lost acknowledged commits")]
    CommitsLost,
    /// The person rows do not match the totals and are invalid now: claim the partition again, and replay people from
    /// the log.
    #[error("the person rows do not match the totals: {0}")]
    RowsLost(InconsistentState),
    /// The people that were in memory before the claim do not match the totals, and were dropped: claim the partition
    /// again, and read them from their rows after it.
    #[error("the people that were in memory before the claim do not match the totals: {0}")]
    PreparedPeopleDiffer(InconsistentState),
    /// The log skips records: claim the partition again and read from the checkpoint. If they are missing again, they
    /// are lost.
    #[error("expected offset {expected}, read {found}")]
    LogGap {
        /// The offset of the first missing record.
        expected: Position,
        /// The offset that was read instead.
        found: Offset,
    },
    /// Folding further could make wrong totals. Only an operator can help; other partitions continue.
    #[error("halted: {0}")]
    Halted(#[from] HaltReason),
}
