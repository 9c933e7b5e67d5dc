//! Recent submission ids, so that a repeated submission returns its first receipt.
//!
//! A convenience for clients. Exactly-once counting does not depend on it: the embedded log refuses repeated submission
//! ids, and the fold ignores a person's latest ones.

pub mod layered;
pub mod memory;
pub mod redis;

use std::time::Duration;

use async_trait::async_trait;
use schemas::{BudgetId, PersonKey, RecordAddress, SubmissionId};

/// An attempt to append a submission with a client-supplied id. The same id of two persons is two ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotentSubmission {
    /// The submission's budget.
    pub budget: BudgetId,
    /// The submission's person.
    pub person: PersonKey,
    /// The submission's id.
    pub submission: SubmissionId,
    /// A digest of the submission's content and person.
    pub digest: u64,
}

/// The result of the lookup of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BeginOutcome {
    /// The id is new, and the attempt is marked as in flight. Or the outcome of the same submission is unknown: it may
    /// be appended again, since the fold counts it once.
    First,
    /// The store did not answer or is full, so it is unknown whether the id is new. The attempt may be appended: the
    /// log or the fold recognises some repeated ids.
    Unchecked,
    /// The submission was accepted before, with this receipt.
    Repeat(RecordAddress),
    /// The same submission is in flight.
    InFlight,
    /// The id was used for other content, which is in the log, may be in it, or is in flight.
    Reused,
}

impl BeginOutcome {
    /// Whether the attempt may be appended. Its outcome must be stored then.
    pub fn may_append(self) -> bool {
        match self {
            Self::First | Self::Unchecked => true,
            Self::Repeat(_) | Self::InFlight | Self::Reused => false,
        }
    }
}

/// What became of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttemptOutcome {
    /// The submission is in the log, with this receipt.
    Accepted(RecordAddress),
    /// The submission is not in the log. Its id can be used again, with any content.
    NotAppended,
    /// The submission may be in the log. Its id can be used again with the same content alone: the fold would take
    /// other content for a duplicate.
    Unknown,
}

/// Stores recent submission ids.
#[async_trait]
pub trait Idempotency: Send + Sync + 'static {
    /// Looks attempts up and marks new ones as in flight. Returns one outcome for each, in order.
    ///
    /// An attempt that is never finished stays in flight for as long as an append to the log may take, and the steps of
    /// the caller `around_append`.
    async fn begin(
        &self,
        attempts: &[IdempotentSubmission],
        around_append: Duration,
    ) -> Vec<BeginOutcome>;

    /// Stores the outcomes of attempts: the receipts of accepted ones, and the content of those that may be in the log.
    /// Removes the marks of those that are not in it. Also of attempts that were not begun.
    async fn finish(&self, outcomes: &[(IdempotentSubmission, AttemptOutcome)]);
}
