//! Log to totals: folds each partition's records into its totals, commits both together, and lets readers know.
//!
//! | module | owns |
//! |---|---|
//! | [`fold`] | what a record does to a partition's state: pure, integers only |
//! | [`partition`] | one partition's life: take-over, fold, commit, rows, release |
//! | [`coordinator`] | which partitions this process has, as the log's group says |
//! | [`publisher`] | telling the cache what is committed |
//! | [`audit`] | deriving everything from the log again, and comparing |
//! | [`dead_letters`] | what operators do about records that could not be taken |

pub mod audit;
pub mod config;
pub mod coordinator;
pub mod dead_letters;
pub mod fold;
mod metrics;
pub mod partition;
pub mod publisher;
mod service;

pub use config::ProcessorConfig;
pub use metrics::ProcessorMetrics;
pub use service::{Processor, ProcessorParts, StartError};
