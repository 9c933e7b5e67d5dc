//! Submission ids, by which a repeated submission is recognised.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Identifies one submission. A repeated id is a duplicate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SubmissionId(pub Uuid);

/// Digest of a submission id, 64 bits. The fold detects duplicates among one person's submissions by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubmissionFingerprint(pub u64);

impl SubmissionId {
    /// Computes the fingerprint. Part of the stored format, so it never changes. Never 0, which marks an empty slot.
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
