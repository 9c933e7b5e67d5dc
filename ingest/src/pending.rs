//! A validated submission on its way to the log, and the outcome of appending it.

use schemas::{PublishStep, RecordAddress, SignalOrigin, Submission, SubmissionId};
use storage::idempotency::{AttemptOutcome, IdempotentSubmission};

/// A validated submission that is ready to be appended.
#[derive(Debug, Clone)]
pub(crate) struct PendingSubmission {
    pub submission: Submission,
    /// The submission's id as its client knows it. The record may have a digest of it instead.
    pub id: SubmissionId,
    /// Whether the client chose the submission id. Server-generated ids are unique and skip the idempotency lookup.
    pub client_supplied_id: bool,
    /// The publish step of the budget's rules.
    pub publish_step: PublishStep,
    /// The budget's cap on people. `None` without one, and for withdrawals, which are always accepted.
    pub max_people: Option<u64>,
    /// Where the submission came from. `None` if no signal is kept of it.
    pub origin: Option<SignalOrigin>,
}

impl PendingSubmission {
    /// Returns the attempt to append the submission.
    pub fn attempt(&self) -> IdempotentSubmission {
        let submission = &self.submission;
        IdempotentSubmission {
            budget: submission.budget.clone(),
            person: submission.person,
            submission: submission.id,
            digest: submission.submission_digest(),
        }
    }
}

/// The result of appending one submission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AppendOutcome {
    /// The submission is in the log.
    Accepted {
        /// Partition and offset of the record.
        address: RecordAddress,
        /// Whether an earlier request appended the record.
        repeated: bool,
        /// Whether it is known that the id is new, or what it was used for. If not, an earlier submission may have it, and
        /// the fold decides.
        id_checked: bool,
    },
    /// Another request with the same id has not finished yet.
    InFlight,
    /// The id belongs to a submission with different content.
    IdReused,
    /// The budget has reached its cap, and the person is not counted: the record was not appended.
    Full,
    /// The budget has reached its cap, and it is unknown whether the person is counted: the record was not appended.
    StandingUnknown,
    /// The budget is closed: the record was not appended.
    Closed,
    /// The budget was closed during the append: the record may stand in front of the close marker, or behind it.
    ClosedMeanwhile,
    /// The log rejected the record: it was not appended.
    Unavailable,
    /// The log gave no answer: the record may have been appended.
    Unknown,
}

impl AppendOutcome {
    /// The outcome of a duplicate of this submission in the same batch.
    pub fn for_duplicate(self) -> Self {
        match self {
            Self::Accepted { address, id_checked, .. } => {
                Self::Accepted { address, repeated: true, id_checked }
            }
            other => other,
        }
    }

    /// Returns what is remembered of the submission's id.
    pub fn of_attempt(self) -> AttemptOutcome {
        match self {
            Self::Accepted { address, .. } => AttemptOutcome::Accepted(address),
            Self::Unknown | Self::ClosedMeanwhile => AttemptOutcome::Unknown,
            Self::InFlight
            | Self::IdReused
            | Self::Full
            | Self::StandingUnknown
            | Self::Closed
            | Self::Unavailable => AttemptOutcome::NotAppended,
        }
    }
}
