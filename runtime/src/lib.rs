//! What every process of the allocator has, whatever it does: layered settings, logs, metrics, health,
//! orderly shutdown, a bounded HTTP server, problems (RFC 9457) for everything that goes wrong on it, and the door that
//! only administrators pass.
//!
//! It knows nothing about budgets, logs or stores, and depends on no other crate of the workspace.

pub mod admin;
pub mod clock;
pub mod config;
pub mod console;
pub mod health;
pub mod http;
pub mod metrics;
pub mod problem;
pub mod process;
pub mod progress;
pub mod shutdown;
pub mod telemetry;
