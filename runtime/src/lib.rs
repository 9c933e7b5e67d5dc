//! What every process needs: settings, logging, metrics, readiness, graceful shutdown, a bounded HTTP server with
//! problem documents (RFC 9457) for errors, rate limits, access control for administrators, and the principal of a
//! request.
//!
//! This crate knows nothing about budgets, logs or stores, and depends on no other crate of the workspace.

pub mod admin;
pub mod client;
pub mod clock;
pub mod config;
pub mod console;
pub mod health;
pub mod http;
pub mod http_client;
pub mod limits;
pub mod metrics;
pub mod open_files;
pub mod principal;
pub mod problem;
pub mod process;
pub mod progress;
pub mod random;
pub mod shutdown;
pub mod telemetry;
