//! Places in the log: an offset names a record, a position names the next record to read.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::LogNumber;

/// The place of one record in its partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Offset(pub u64);

impl Offset {
    /// The position just after this record.
    pub fn next(self) -> Position {
        Position(self.0 + 1)
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The next offset to read: everything below it has been taken in, nothing at or above it.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Position(pub u64);

impl Position {
    /// The start of every log.
    pub const START: Position = Position(0);

    /// Whether the record at `offset` has been taken in.
    pub fn includes(self, offset: Offset) -> bool {
        offset.0 < self.0
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One complete derivation of the totals from the log. A rebuild makes the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(pub u32);

impl Generation {
    /// What a new deployment starts with.
    pub const FIRST: Generation = Generation(1);
}

/// A generation while it answers the public. Every flip from one generation to another begins the next term, so that
/// answers have an order even when an earlier generation answers again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Term {
    /// Counts the terms, from 1.
    pub number: u32,
    /// Who answers in it.
    pub generation: Generation,
    /// The log that it derives from.
    pub log: LogNumber,
}

impl Term {
    /// The first.
    pub const FIRST: Term =
        Term { number: 1, generation: Generation::FIRST, log: LogNumber::FIRST };
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
