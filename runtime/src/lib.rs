//! What every process needs: settings, logging, metrics, readiness, graceful shutdown, a bounded HTTP server with
//! problem documents (RFC 9457) for errors, rate limits, access control for administrators, and the principal of a
//! request.
//!
//! | module | owns |
//! |---|---|
//! | [`process`], [`shutdown`], [`health`], `stall_watch` | start and end of a process, and whether it works |
//! | [`config`] | settings in layers: defaults, file, environment, flags |
//! | [`telemetry`], [`metrics`] | logs and metrics |
//! | [`http`], [`problem`] | the HTTP server, and the documents of its errors |
//! | [`client`], [`principal`], [`admin`] | who asks: the network, the credentials, the administrator |
//! | [`limits`] | how often a client may ask |
//! | [`http_client`], [`open_files`], [`clock`], [`random`] | one place for what can be chosen once |
//! | [`console`], [`progress`] | what a command prints |
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
mod stall_watch;
pub mod telemetry;
