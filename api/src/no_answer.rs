//! Why a read has no answer.

use crate::client_limit::LimitReached;

/// Why a read has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoAnswer {
    /// No tier answers, and memory is empty.
    #[error("the totals of this budget cannot be read now")]
    Unavailable,
    /// The store works, but too many reads of it were queued for too long.
    #[error("too many reads of the store are queued")]
    Overloaded,
    /// Only a recount is left, and there are too many people to count in time.
    #[error(
        "the totals of this budget cannot be read now, and there are more than {max_people} people to count instead"
    )]
    TooManyPeople {
        /// The limit, `api.recount_max_people`.
        max_people: u64,
    },
    /// Only a recount is left, which shows each change, and the budget's results move in steps.
    #[error(
        "the totals of this budget cannot be read now, and its results move in steps, which a count of people would not keep"
    )]
    MovesInSteps,
    /// The submission is not counted in what can be read.
    #[error("the submission is not counted yet")]
    NotYetVisible,
    /// The receipt names a record so far beyond the end of the log that waiting for it is futile.
    #[error("the submission is not counted, and its receipt is far beyond the end of the log")]
    BeyondLog,
    /// The receipt names a partition that its log does not have.
    #[error("the receipt is not of this service")]
    NoSuchPartition,
    /// Too many readers wait already.
    #[error("too many reads are waiting for submissions")]
    TooManyWaiters,
    /// Too many readers of the same client wait already.
    #[error("too many reads from this address are waiting for submissions")]
    TooManyWaitersOfClient,
}

impl NoAnswer {
    /// Returns the reason of a read that may not wait.
    pub fn of_waiting(reached: LimitReached) -> Self {
        match reached {
            LimitReached::Total => Self::TooManyWaiters,
            LimitReached::OfClient => Self::TooManyWaitersOfClient,
        }
    }
}
