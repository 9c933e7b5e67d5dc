//! Operators' tasks that run next to the fold: audit, export, archive, dead letters, annulments, jobs.
//!
//! | module | owns |
//! |---|---|
//! | [`annulment`] | annulling people of a budget, and restoring them |
//! | [`archive`] | copying the committed log to files, and checking those files |
//! | [`audit`] | deriving everything from the log again, and comparing |
//! | [`dead_letters`] | replaying and dropping records that the fold rejected |
//! | [`export`] | writing everyone's allocation in a budget to a file, without identities |
//! | [`jobs`] | background tasks: leases, attempts, executors |
//! | [`report`] | the report of a budget, as JSON and HTML |
//! | [`progress`] | completed and total amount of an audit, an export or an archive run |
//! | `backend_error` | whether an operation that cannot use a backend may be retried |
//!
//! The command line for these is the `processor` crate's `cli`.

pub mod annulment;
pub mod archive;
pub mod audit;
mod backend_error;
pub mod dead_letters;
pub mod export;
pub mod jobs;
pub mod progress;
pub mod report;

pub use backend_error::BackendError;
