//! Replays of dead letters: exactly once under any failure, and never over a later submission of the person.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod attempts;
mod drops;
mod fixture;
mod refusals;
