//! The priority of a job.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The priority of a job, in ascending order.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// Runs when no other job is ready.
    Low,
    /// The default.
    #[default]
    Normal,
    /// Runs before normal jobs.
    High,
    /// Runs before all other jobs.
    Critical,
}

impl Priority {
    /// All priorities, in ascending order.
    pub const ALL: [Priority; 4] = [Self::Low, Self::Normal, Self::High, Self::Critical];

    /// Name in JSON and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Normal => "normal",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A text that is not a priority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be critical, high, normal or low")]
pub struct PriorityFault;

impl FromStr for Priority {
    type Err = PriorityFault;

    fn from_str(text: &str) -> Result<Self, PriorityFault> {
        Self::ALL.into_iter().find(|priority| priority.name() == text).ok_or(PriorityFault)
    }
}
