//! The reads from outside, through the whole HTTP stack, over places whose faults can be switched.
//!
//! Time is the test's own: it stands still while anything can happen, and leaps when all only wait.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod admin;
mod aggregates;
mod answers;
mod chain;
mod consistency;
mod counters;
mod dead_letters;
mod export;
mod fakes;
mod forward;
mod generation;
mod jobs;
mod person;
mod readiness;
mod world;
