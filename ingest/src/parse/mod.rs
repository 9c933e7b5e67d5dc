//! Request bodies to domain values: exact, strict, and with every fault of a body at once.
//!
//! Nothing is guessed and nothing passed over: an unknown or repeated member is a fault, because a misspelt
//! `submission_id` that was ignored would lose the promise that came with it. No I/O, and no state but the budget's
//! definition.

mod batch;
mod definition;
mod json;
mod percentage;
mod submission;

pub(crate) use batch::{Drafts, MAX_ITEMS, json_array, lines};
pub(crate) use definition::definition;
pub(crate) use submission::{Draft, submission};

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests;
