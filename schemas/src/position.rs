//! Offsets, positions, generations and terms.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::LogNumber;

/// The offset of a record in its partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Offset(pub u64);

impl Offset {
    /// The position after this record.
    pub fn next(self) -> Position {
        Position(self.0 + 1)
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The next offset to read: records below it are processed, records at or above it are not.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Position(pub u64);

impl Position {
    /// The position before the first record.
    pub const START: Position = Position(0);

    /// Whether the record at `offset` is below this position.
    pub fn includes(self, offset: Offset) -> bool {
        offset.0 < self.0
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One complete derivation of totals from the log. A rebuild creates a new generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(pub u32);

impl Generation {
    /// The first generation of a new deployment.
    pub const FIRST: Generation = Generation(1);
}

/// A period in which one generation is active. Every switch begins the next term, which orders published totals even
/// after a rollback to an earlier generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Term {
    /// The term's number, from 1.
    pub number: u32,
    /// The active generation of this term.
    pub generation: Generation,
    /// The log that the generation is derived from.
    pub log: LogNumber,
}

impl Term {
    /// The first term of a new deployment.
    pub const FIRST: Term =
        Term { number: 1, generation: Generation::FIRST, log: LogNumber::FIRST };
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
