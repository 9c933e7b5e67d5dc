//! The logs of a deployment. A log is one Kafka topic of submissions; a repartition copies it into a new topic, which
//! becomes the next log.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Generation, PartitionCount};

/// The number of a log within its deployment. Later logs have higher numbers.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct LogNumber(pub u32);

impl LogNumber {
    /// The first log of a new deployment.
    pub const FIRST: LogNumber = LogNumber(0);

    /// The number of the log that a generation creates. Generation numbers are never reused, so log numbers are not
    /// either.
    pub fn for_generation(generation: Generation) -> Self {
        Self(generation.0)
    }
}

impl fmt::Display for LogNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A log: one topic of submissions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogRef {
    /// The log's number.
    pub number: LogNumber,
    /// The topic's name.
    pub topic: String,
    /// The number of its partitions, which never changes.
    pub partitions: PartitionCount,
}

impl LogRef {
    /// Creates the reference to the first log of a deployment.
    pub fn first(topic: &str, partitions: PartitionCount) -> Self {
        Self { number: LogNumber::FIRST, topic: topic.to_owned(), partitions }
    }
}
