//! What a person says: an allocation, or its withdrawal.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{Allocation, BudgetId, PersonKey};

/// Names one submission. The same id again is the same submission, however often it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SubmissionId(pub Uuid);

/// 64 bits of a submission id: what the fold remembers to know a repetition among one person's own submissions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubmissionFingerprint(pub u64);

impl SubmissionId {
    /// The id's fingerprint. Part of the stored format: it never changes. It is never 0, which marks an empty place.
    pub fn fingerprint(self) -> SubmissionFingerprint {
        let (high, low) = self.0.as_u64_pair();
        let mixed = (high ^ 0x243f_6a88_85a3_08d3).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ low;
        SubmissionFingerprint(mixed.max(1))
    }
}

impl fmt::Display for SubmissionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

/// What a submission does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// The person's allocation from now on.
    Allocate(Allocation),
    /// The person no longer counts.
    Withdraw,
}

/// One accepted submission, ready for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submission {
    /// Which budget it is about.
    pub budget: BudgetId,
    /// Who said it.
    pub person: PersonKey,
    /// Its name.
    pub id: SubmissionId,
    /// When ingest accepted it, in milliseconds since 1970.
    pub accepted_at_ms: u64,
    /// What it says.
    pub action: Action,
}
