//! Log to totals: folds each partition's records into its totals, commits both together, and lets readers know.
//!
//! | module | owns |
//! |---|---|
//! | [`fold`] | what a record does to a partition's state: pure, integers only |
//! | [`partition`] | one partition's life: take-over, fold, commit, rows, release |
//! | [`coordinator`] | which partitions this process has, as the log's group says |
//! | [`publisher`] | telling the cache what is committed |
//! | [`archive`] | copying what is committed of the log to files, and checking those |
//! | [`audit`] | deriving everything from the log again, and comparing |
//! | [`export`] | everyone's allocation in a budget as a file, without who they are |
//! | [`generations`] | which derivation answers, which is built beside it, and how one follows the other |
//! | `beside` | folding the generations that do not answer, and comparing them |
//! | [`rebuild`] | the operators' commands: a new generation, and the way back |
//! | [`repartition`] | another partition count: a copy of the log, and everyone's way to it |
//! | [`jobs`] | what is done in the background because somebody asked for it |
//! | [`dead_letters`] | what operators do about records that could not be taken |

mod again;
pub mod archive;
pub mod audit;
mod beside;
pub mod config;
pub mod coordinator;
pub mod dead_letters;
pub mod export;
pub mod fold;
pub mod generations;
pub mod jobs;
mod metrics;
pub mod partition;
pub mod publisher;
pub mod rebuild;
pub mod repartition;
mod service;

pub use config::ProcessorConfig;
pub use metrics::ProcessorMetrics;
pub use service::{Processor, ProcessorParts, StartError, first_roster};
