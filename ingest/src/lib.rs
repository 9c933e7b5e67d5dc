//! HTTP to log: parses and validates submissions, appends them to the log, and responds with their receipts.
//!
//! | module | owns |
//! |---|---|
//! | `routes` | one file per route |
//! | `parse` | bodies to domain values, reporting every fault at once |
//! | `media_type`, `idempotency_key`, `preconditions` | body type, submission id and conditions of a request |
//! | `response`, `problems` | bodies and problem documents that several routes share |
//! | `service`, `deps` | the checks that all routes share, and the handles that they use |
//! | `charge` | what a request costs of the rate limits |
//! | `checked_append` | charging and appending what was checked against a definition |
//! | `people_cap` | refusing new people of a budget that has reached its cap |
//! | `budget_freezer` | freezing a budget's rules before its first submission |
//! | `pending` | a validated submission on its way to the log, and its outcome |
//! | `in_flight_limit`, `detach_on_drop` | how many records wait for the log; appends that outlive their request |
//! | `append` | validated submissions to records in the log, at most once per submission id |
//! | `signals` | what is kept of a submission to notice fraud |
//! | `email` | one-time codes by e-mail: issued, sent and redeemed |
//! | `default_budgets` | the budgets that every deployment starts with |
//! | `readiness`, `refused_partitions`, `metrics` | health, partitions that refuse submissions, and counts |
//! | `topic_watch`, `topic_settings`, `replication` | reports of topics whose settings are wrong |
//! | `config` | the settings |
//!
//! Ingest never reads the log and does not know what submissions add up to.

mod append;
mod budget_freezer;
mod charge;
mod checked_append;
mod config;
mod default_budgets;
mod deps;
mod detach_on_drop;
mod email;
mod idempotency_key;
mod in_flight_limit;
mod media_type;
mod metrics;
mod parse;
mod pending;
mod people_cap;
mod preconditions;
mod problems;
mod readiness;
mod refused_partitions;
mod replication;
mod response;
mod routes;
mod service;
mod signals;
mod topic_settings;
mod topic_watch;

pub use config::IngestConfig;
pub use default_budgets::define_default_budgets;
pub use deps::IngestDeps;
pub use email::{
    EmailConfig, EmailError, EmailSignIn, email_sign_in, report_budgets_without_email,
};
pub use parse::{PercentageFault, parse_basis_points};
pub use people_cap::CountedPeople;
pub use readiness::watch_readiness;
pub use replication::report_replication;
pub use routes::{openapi, routes};
pub use signals::PendingSignals;
pub use topic_settings::report_topic_settings;
