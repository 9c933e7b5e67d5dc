//! What folding a record may do: which state it updates, and what becomes of the record.

use schemas::{BudgetId, Offset, PartitionId, RecordFault};

/// Which state a record updates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FoldMode {
    /// Totals and people: the record is new.
    Live,
    /// Person states only: a takeover replays a record that the totals already contain.
    Replay,
}

/// What folding a record did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FoldOutcome {
    /// The record changed the state.
    Applied,
    /// The record repeats a submission id and changed nothing.
    Duplicate,
    /// The record stands behind the close marker of its budget and changed nothing.
    Late,
    /// The record is rejected.
    DeadLetter(DeadLetterReason),
}

/// Why a record is rejected. Depends only on the record and the records before it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeadLetterReason {
    /// The record cannot be decoded.
    #[error(transparent)]
    Record(#[from] RecordFault),
    /// The person belongs to another partition, where they may already be counted.
    #[error("the person belongs to partition {0}")]
    WrongPartition(PartitionId),
    /// The number of categories differs from the budget's first submission.
    #[error("{found} categories, where the budget's first submission had {expected}")]
    Categories {
        /// Categories of the budget's first submission.
        expected: usize,
        /// Categories of this record.
        found: usize,
    },
}

/// The totals and the people of a budget contradict each other: the state must not be folded further.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InconsistentState {
    /// A person's previous shares are not in the totals.
    #[error(
        "the totals of budget `{budget}` do not contain the previous shares of the person at offset {offset}"
    )]
    SharesNotInTotals {
        /// The budget.
        budget: BudgetId,
        /// The person's new record, which replaces the previous shares.
        offset: Offset,
    },
    /// The totals are not the sum of the people's shares.
    #[error(
        "the totals of budget `{budget}` count {total} people, but {recounted} people are known; \
         or their shares differ"
    )]
    TotalsDifferFromPeople {
        /// The budget.
        budget: BudgetId,
        /// People in the totals.
        total: u64,
        /// People who are known.
        recounted: u64,
    },
    /// The people are others than those that the totals were committed with, although their sums are the same.
    #[error("the totals of budget `{budget}` were committed with other rows of its people")]
    OtherPeople {
        /// The budget.
        budget: BudgetId,
    },
}
