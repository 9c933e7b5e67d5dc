//! Texts of bounded size, whoever wrote them.

use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The longest checkpoint.
const CHECKPOINT_MAX_BYTES: usize = 8_192;

/// A text of at most `MAX` bytes: what is longer is cut. It has no control characters but line breaks, so that it can
/// be shown on a terminal.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct Clipped<const MAX: usize>(String);

/// The name of a person, or of a process.
pub type JobName = Clipped<100>;
/// What a job says: a result, an error, how far it has come.
pub type JobText = Clipped<1_000>;

/// Stands where a text was cut.
const CUT: &str = "…";

impl<const MAX: usize> Clipped<MAX> {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<const MAX: usize> From<&str> for Clipped<MAX> {
    fn from(text: &str) -> Self {
        let shown =
            |c: char| if c.is_control() && c != '\n' { char::REPLACEMENT_CHARACTER } else { c };
        // A character takes at least a byte: no more of a long text is looked at than can be kept.
        let mut clipped: String = text.chars().take(MAX + 1).map(shown).collect();
        if clipped.len() > MAX {
            let room = MAX.saturating_sub(CUT.len());
            clipped.truncate(clipped.floor_char_boundary(room));
            clipped.push_str(CUT);
        }
        Self(clipped)
    }
}

impl<const MAX: usize> From<String> for Clipped<MAX> {
    fn from(text: String) -> Self {
        Self::from(text.as_str())
    }
}

impl<const MAX: usize> From<Clipped<MAX>> for String {
    fn from(text: Clipped<MAX>) -> Self {
        text.0
    }
}

impl<const MAX: usize> fmt::Display for Clipped<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// What the runner of one kind of job has to know to go on where a worker left off, as JSON of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JobCheckpoint(String);

/// What is not kept with a job.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointFault {
    /// It takes more room than a row has for it.
    #[error("a checkpoint of {0} bytes is too large: at most {CHECKPOINT_MAX_BYTES}")]
    TooLarge(usize),
    /// It is not JSON.
    #[error("a checkpoint cannot be written as JSON: {0}")]
    NotJson(String),
}

impl JobCheckpoint {
    /// Writes a checkpoint.
    ///
    /// # Errors
    /// When it is too large, or JSON cannot hold it: a mistake of the runner's.
    pub fn of(state: &impl Serialize) -> Result<Self, CheckpointFault> {
        let text = serde_json::to_string(state);
        let text = text.map_err(|error| CheckpointFault::NotJson(error.to_string()))?;
        if text.len() > CHECKPOINT_MAX_BYTES {
            return Err(CheckpointFault::TooLarge(text.len()));
        }
        Ok(Self(text))
    }

    /// Reads it. `None` for damage, and for what another release wrote.
    pub fn read<T: DeserializeOwned>(&self) -> Option<T> {
        serde_json::from_str(&self.0).ok()
    }
}
