//! Which log: the topics of submissions that a deployment has had, one after the other. Another partition count is another
//! topic, into which everything is copied before it takes the place of the one before.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Generation, PartitionCount};

/// Says which of a deployment's logs: a later one has a higher number.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct LogNumber(pub u32);

impl LogNumber {
    /// The one that a new deployment begins with.
    pub const FIRST: LogNumber = LogNumber(0);

    /// The one that a generation begins with. Generations' numbers are never used again, so logs' are not either.
    pub fn begun_by(generation: Generation) -> Self {
        Self(generation.0)
    }
}

impl fmt::Display for LogNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A log: a topic of submissions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogRef {
    /// Which of the deployment's.
    pub number: LogNumber,
    /// The topic's name.
    pub topic: String,
    /// How many partitions it has, for ever.
    pub partitions: PartitionCount,
}

impl LogRef {
    /// The log that a new deployment begins with.
    pub fn first(topic: &str, partitions: PartitionCount) -> Self {
        Self { number: LogNumber::FIRST, topic: topic.to_owned(), partitions }
    }
}
