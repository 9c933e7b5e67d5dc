//! Submissions: a person's allocation for a budget, or its withdrawal.

use ring::digest;

use crate::{Allocation, BudgetId, PersonKey, SubmissionId};

/// What a submission does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Sets the person's allocation.
    Allocate(Allocation),
    /// Withdraws the person's allocation.
    Withdraw,
}

/// One accepted submission, ready for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submission {
    /// The budget.
    pub budget: BudgetId,
    /// The person.
    pub person: PersonKey,
    /// The submission's id.
    pub id: SubmissionId,
    /// Time at which ingest accepted it, in milliseconds since 1970.
    pub accepted_at_ms: u64,
    /// The allocation or withdrawal.
    pub action: Action,
}

impl Submission {
    /// Hashes person and content to 64 bits: with the same id, another digest is another submission.
    ///
    /// Stored by all processes and releases, so it never changes.
    pub fn submission_digest(&self) -> u64 {
        let shares = match &self.action {
            Action::Allocate(allocation) => allocation.basis_points(),
            Action::Withdraw => &[],
        };
        submission_digest(&self.person, shares.iter().copied())
    }
}

pub(crate) fn submission_digest(person: &PersonKey, shares: impl Iterator<Item = u16>) -> u64 {
    let mut hash = digest::Context::new(&digest::SHA256);
    hash.update(person.as_bytes());
    shares.for_each(|share| hash.update(&share.to_be_bytes()));
    hash.finish().as_ref().iter().take(8).fold(0, |digest, byte| digest << 8 | u64::from(*byte))
}
