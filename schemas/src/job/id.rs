//! The id of a job.

use std::fmt;
use std::str::FromStr;

use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use uuid::{Builder, Uuid};

/// Identifies a job: a UUID of version 7, or of version 8 if derived from a client's name for the job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JobId(pub Uuid);

impl JobId {
    /// Creates a version 7 id from the current time and a random UUID.
    pub fn new(now_ms: u64, random: Uuid) -> Self {
        let mut tail = [0; 10];
        // The bytes of a version 4 UUID that hold neither its version nor its variant.
        tail[..6].copy_from_slice(&random.as_bytes()[..6]);
        tail[6..].copy_from_slice(&random.as_bytes()[12..]);
        Self(Builder::from_unix_timestamp_millis(now_ms, &tail).into_uuid())
    }

    /// Derives the id from a client's name for the job: the same requester and name give the same id.
    pub fn from_name(requested_by: &str, name: &str) -> Self {
        // The length prefix separates the requester from the name.
        let text = [
            &(requested_by.len() as u64).to_le_bytes()[..],
            requested_by.as_bytes(),
            name.as_bytes(),
        ];
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
