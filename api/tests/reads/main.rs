//! Tests of the read API through the whole HTTP stack, over fake backends with switchable faults.
//!
//! Tokio's clock is paused: it stands still while any task can run, and jumps to the next timer when all tasks wait.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod active_generation;
mod admin;
mod aggregates;
mod annulments;
mod bodies;
mod consistency;
mod dead_letters;
mod embeds;
mod export;
mod fakes;
mod forget;
mod history;
mod identities;
mod jobs;
mod manners;
mod pages;
mod person;
#[path = "../../../runtime/src/principal/tests/tokens.rs"]
mod provider;
mod publish_step;
mod read_limits;
mod read_metrics;
mod readiness;
mod signals;
mod streams;
mod test_server;
mod tier_chain;
mod updates;
mod websocket;
mod websocket_frames;
mod withheld;
