//! HTTP to log: takes submissions, checks them, and answers once they are in the log.
//!
//! | place | what |
//! |---|---|
//! | `parse` | bodies to domain values, with every fault at once |
//! | `routes` | one file a route |
//! | `service` | what the routes share, and what each asks first |
//! | `acceptance` | from checked submissions to the log, each once |
//! | `freeze` | a budget's rules hold still from its first submission on |
//!
//! What submissions add up to is not decided here, and nothing here reads the log.

mod acceptance;
mod answer;
mod config;
mod default_budgets;
mod freeze;
mod idempotency_key;
mod media_type;
mod metrics;
mod parse;
mod readiness;
mod routes;
mod service;
mod to_the_end;

use std::sync::Arc;

use runtime::admin::AdminGuard;
use schemas::PersonKeyHasher;
use storage::definitions::Definitions;
use storage::idempotency::Idempotency;
use storage::log::LogWriter;

pub use config::IngestConfig;
pub use default_budgets::define_default_budgets;
pub use readiness::watch_readiness;
pub use routes::routes;

/// What ingest stands on.
#[derive(Clone)]
pub struct IngestParts {
    /// Where submissions go.
    pub log: Arc<dyn LogWriter>,
    /// The budgets.
    pub definitions: Arc<dyn Definitions>,
    /// Submission ids seen lately.
    pub idempotency: Arc<dyn Idempotency>,
    /// Makes person keys.
    pub hasher: PersonKeyHasher,
    /// Lets administrators change definitions, and nobody else.
    pub admin: AdminGuard,
}
