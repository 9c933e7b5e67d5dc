//! HTTP clients of the tests.

use reqwest::{Client, ClientBuilder};

/// Begins an HTTP client. The TLS provider is installed because `reqwest` needs one even for plain HTTP.
pub fn builder() -> ClientBuilder {
    // Fails if a provider is installed already, which is just as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder()
}

/// Gets a URL with a client of its own.
///
/// # Errors
/// When the request fails.
pub async fn get(url: impl reqwest::IntoUrl) -> reqwest::Result<reqwest::Response> {
    builder().build()?.get(url).send().await
}
