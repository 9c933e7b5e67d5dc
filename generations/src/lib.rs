//! Generations: complete derivations of the totals from the log, and the switch between them.
//!
//! | module | owns |
//! |---|---|
//! | [`registry`] | which generation is active, building, previous or retired: pure transitions, one conditional write |
//! | [`shadow`] | folding the generations that are not active and comparing them with the active one |
//! | [`rebuild`] | building a new generation from the first record of the log and switching to it |
//! | [`repartition`] | moving to a new log with another partition count |
//! | [`comparison`] | differences between two derivations of the same totals |
//! | [`metrics`] | the metrics of all of these |

pub mod comparison;
pub mod metrics;
pub mod rebuild;
pub mod registry;
pub mod repartition;
pub mod shadow;
