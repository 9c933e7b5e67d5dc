//! The engine: folds the log into totals and commits them exactly once.
//!
//! | module | owns |
//! |---|---|
//! | [`fold`] | how one record changes a partition's state: pure, integers only |
//! | [`partition`] | one partition's life: claim, restore, fold, commit, person rows, release |
//! | [`coordinator`] | which partitions this process owns, as the consumer group assigns them |
//! | [`closing`] | closing budgets and reopening them, by markers in the log |
//! | [`publisher`] | publishing committed totals to the cache |
//! | [`metrics`] | the engine's Prometheus metrics |
//!
//! Generations other than the active one are the `generations` crate's; operators' tasks are the `operations` crate's.

pub mod closing;
pub mod coordinator;
pub mod fold;
pub mod metrics;
pub mod partition;
pub mod publisher;
