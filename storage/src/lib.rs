//! One trait for each place where data rests, and its real adapters. What the data means is not decided here.
//!
//! | place | trait | real servers | embedded |
//! |---|---|---|---|
//! | the log | [`log::LogWriter`], [`log::LogSource`], [`log::LogReader`], [`log::DeadLetters`] | Kafka | SQLite |
//! | what the log no longer has | [`log::LogReader`] | files in a folder: [`log::archive`] | the same |
//! | the totals and people | [`store::Store`] | ScyllaDB, Cassandra | SQLite; memory, for simulation |
//! | background jobs | [`jobs::JobStore`] | beside the totals | beside the totals |
//! | the copy for readers | [`cache::Cache`] | Redis | in process |
//! | budgets' definitions | [`definitions::Definitions`] | a compacted Kafka topic | SQLite |
//! | exports | files in a folder: [`exports`] | the same | the same |
//! | submission ids seen | [`idempotency::Idempotency`] | Redis | in process |

pub mod cache;
pub mod config;
pub mod definitions;
pub mod exports;
pub mod idempotency;
pub mod jobs;
pub mod late;
pub mod log;
pub mod opening;
mod redis_connection;
pub mod revised;
mod secret;
pub mod service_config;
mod sqlite;
pub mod store;
