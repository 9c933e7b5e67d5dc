//! Parses request bodies into domain values: exact, strict, and reporting every fault of a body at once.
//!
//! An unknown or repeated member is a fault: ignoring a misspelt `submission_id` would silently drop idempotency. No
//! I/O, and no state but the budget's definition.

mod batch;
mod definition;
mod form;
mod json;
mod percentage;
mod presentation;
mod session;
mod submission;

pub(crate) use batch::{MAX_ITEMS, ParsedBatch, json_array, ndjson};
pub(crate) use definition::definition;
pub(crate) use form::{form, submission_id};
pub use percentage::{PercentageFault, parse_basis_points};
pub(crate) use session::{EmailSessionRequest, email_session, session_code};
pub(crate) use submission::{ParsedSubmission, own_submission, submission};

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests;
