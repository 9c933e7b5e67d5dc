//! One trait for each kind of stored data, and its adapters. Does not decide what the data means.
//!
//! | data | trait | servers | embedded |
//! |---|---|---|---|
//! | the log | [`log::LogWriter`], [`log::LogSource`], [`log::LogReader`], [`log::DeadLetterWriter`] | Kafka | SQLite |
//! | the log's archive | [`log::LogReader`] | files in a directory: [`log::archive`] | same |
//! | totals, person rows, generations | [`store::Store`] | ScyllaDB, Cassandra | SQLite; in memory, for simulation |
//! | background jobs | [`jobs::JobStore`] | in the store | in the store |
//! | the cache of published totals | [`cache::Cache`] | Redis | in process |
//! | budget definitions, the active log, revoked codes | [`control::BudgetDefinitions`], [`control::ActiveLog`], [`control::CodeRevocations`] | a compacted Kafka topic | SQLite |
//! | signals of submissions, for seven days | [`signals::SignalWriter`], [`signals::SignalReader`] | a Kafka topic | SQLite |
//! | exports | files in a directory: [`exports`] | same | same |
//! | known submission ids | [`idempotency::Idempotency`] | Redis | in process |
//! | one-time codes by e-mail | [`one_time_codes::OneTimeCodes`] | Redis | in process |
//! | counters of rate limits | [`runtime::limits::SharedCounters`] | Redis | in process |

pub mod cache;
pub mod cas;
pub mod config;
pub mod control;
pub mod deferred;
pub mod exports;
pub mod forget;
pub mod idempotency;
pub mod jobs;
pub mod limits;
pub mod log;
mod log_identity;
pub mod one_time_codes;
pub mod open_error;
pub mod private_files;
mod redis_connection;
pub mod retry;
mod secret;
pub mod signals;
mod sqlite;
pub mod store;
