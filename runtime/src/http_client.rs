//! HTTP clients: one place that chooses the TLS implementation.
//!
//! `ring` is built anyway; `reqwest`'s default, `aws-lc`, would take a minute of every build from scratch.

use reqwest::ClientBuilder;

/// Begins an HTTP client that speaks TLS through `ring`.
pub fn builder() -> ClientBuilder {
    // Fails if a provider is installed already, which is just as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
}
