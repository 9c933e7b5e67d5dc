//! How urgent a job is.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How urgent a job is; later ones are more urgent.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// When nobody needs anything else.
    Low,
    /// If nothing else is said.
    #[default]
    Normal,
    /// Before what is normal.
    High,
    /// Before everything else.
    Critical,
}

impl Priority {
    /// All of them, the least urgent first.
    pub const ALL: [Priority; 4] = [Self::Low, Self::Normal, Self::High, Self::Critical];

    /// Its name, as in JSON and on the command line.
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

/// A text that is no priority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be critical, high, normal or low")]
pub struct PriorityFault;

impl FromStr for Priority {
    type Err = PriorityFault;

    fn from_str(text: &str) -> Result<Self, PriorityFault> {
        Self::ALL.into_iter().find(|priority| priority.name() == text).ok_or(PriorityFault)
    }
}
