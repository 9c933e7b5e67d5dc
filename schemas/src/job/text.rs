//! Texts of bounded size in a job's row.

use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

const CHECKPOINT_MAX_BYTES: usize = 8_192;

/// A text of at most `MAX` bytes; longer texts are truncated. Control characters other than line breaks are replaced,
/// so that it can be shown on a terminal.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct BoundedText<const MAX: usize>(String);

/// Name of a person or a process.
pub type JobName = BoundedText<100>;
/// A result, an error or a progress message of a job.
pub type JobText = BoundedText<1_000>;

/// Marks the end of a truncated text.
const ELLIPSIS: &str = "…";

impl<const MAX: usize> BoundedText<MAX> {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<const MAX: usize> From<&str> for BoundedText<MAX> {
    fn from(text: &str) -> Self {
        let printable =
            |c: char| if c.is_control() && c != '\n' { char::REPLACEMENT_CHARACTER } else { c };
        // Each character has at least one byte, so the work is bounded for a text of any length.
        let mut bounded: String = text.chars().take(MAX + 1).map(printable).collect();
        if bounded.len() > MAX {
            let kept_bytes = MAX.saturating_sub(ELLIPSIS.len());
            bounded.truncate(bounded.floor_char_boundary(kept_bytes));
            bounded.push_str(ELLIPSIS);
        }
        Self(bounded)
    }
}

impl<const MAX: usize> From<String> for BoundedText<MAX> {
    fn from(text: String) -> Self {
        Self::from(text.as_str())
    }
}

impl<const MAX: usize> From<BoundedText<MAX>> for String {
    fn from(text: BoundedText<MAX>) -> Self {
        text.0
    }
}

impl<const MAX: usize> fmt::Display for BoundedText<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// State from which the next attempt of a job resumes. JSON in a format of the job's executor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JobCheckpoint(String);

/// Why a value cannot be stored as a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointFault {
    /// The encoded value is too large for the row.
    #[error("a checkpoint of {0} bytes is too large: at most {CHECKPOINT_MAX_BYTES}")]
    TooLarge(usize),
    /// The value cannot be encoded as JSON.
    #[error("a checkpoint cannot be encoded as JSON: {0}")]
    NotJson(String),
}

impl JobCheckpoint {
    /// Encodes a checkpoint.
    ///
    /// # Errors
    /// When the value is too large or cannot be encoded: a bug of the executor.
    pub fn of(state: &impl Serialize) -> Result<Self, CheckpointFault> {
        let text = serde_json::to_string(state);
        let text = text.map_err(|error| CheckpointFault::NotJson(error.to_string()))?;
        if text.len() > CHECKPOINT_MAX_BYTES {
            return Err(CheckpointFault::TooLarge(text.len()));
        }
        Ok(Self(text))
    }

    /// Decodes the checkpoint; `None` if it is damaged or of an unknown release.
    pub fn read<T: DeserializeOwned>(&self) -> Option<T> {
        serde_json::from_str(&self.0).ok()
    }
}
