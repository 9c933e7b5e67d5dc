//! Golden bytes of stored formats: they must be readable in all later releases.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod definitions;
mod documents;
mod persons;
mod records;
mod shares;
mod signals;
mod totals;
