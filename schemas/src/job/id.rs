//! A job's id.

use std::fmt;
use std::str::FromStr;

use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use uuid::{Builder, Uuid};

/// A job's id: a UUID of version 7, or one that a name leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JobId(pub Uuid);

impl JobId {
    /// The id of a job that is asked for now, made unique by `random`, a random UUID.
    pub fn new(now_ms: u64, random: Uuid) -> Self {
        let mut tail = [0; 10];
        // What is random in a UUID of version 4 without a version or variant in between.
        tail[..6].copy_from_slice(&random.as_bytes()[..6]);
        tail[6..].copy_from_slice(&random.as_bytes()[12..]);
        Self(Builder::from_unix_timestamp_millis(now_ms, &tail).into_uuid())
    }

    /// The id of the job that somebody gave this name: the same again is the same job.
    pub fn named(asked_by: &str, name: &str) -> Self {
        // The length keeps what belongs to one from what belongs to the other.
        let text =
            [&(asked_by.len() as u64).to_le_bytes()[..], asked_by.as_bytes(), name.as_bytes()];
        let whole = digest(&SHA256, &text.concat());
        let mut cut = [0; 16];
        cut.copy_from_slice(&whole.as_ref()[..16]);
        Self(Builder::from_custom_bytes(cut).into_uuid())
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for JobId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, uuid::Error> {
        text.parse().map(Self)
    }
}
