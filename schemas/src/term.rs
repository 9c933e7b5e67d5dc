//! Terms: which generation is active, in the order of the switches.

use serde::{Deserialize, Serialize};

use crate::{Generation, LogNumber};

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
