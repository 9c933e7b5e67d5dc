//! The lock of a budget's annulments: which job may annul or restore people of the budget.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::job::JobId;

/// The holder of a budget's lock: one attempt of a job.
///
/// A restoration reads whom its annulment holds, and appends records about these people later. An annulment that was
/// appended in between would be lost. So only the holder appends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnnulmentLock {
    /// The job.
    pub job: JobId,
    /// Unique to the attempt, so that a lock that was taken again is not mistaken for the one before.
    pub token: Uuid,
}
