//! HTTP clients of the tests.

use std::time::Duration;

use reqwest::{Client, ClientBuilder};

/// How long a connection may idle. Less than the services allow (`http.header_timeout_ms`): a request on a connection
/// that the service closes at that moment fails.
const IDLE_TIMEOUT: Duration = Duration::from_secs(5);

/// Begins an HTTP client. The TLS provider is installed because `reqwest` needs one even for plain HTTP.
pub fn builder() -> ClientBuilder {
    // Fails if a provider is installed already, which is just as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder().pool_idle_timeout(IDLE_TIMEOUT)
}

/// Gets a URL with a client of its own.
///
/// # Errors
/// When the request fails.
pub async fn get(url: impl reqwest::IntoUrl) -> reqwest::Result<reqwest::Response> {
    builder().build()?.get(url).send().await
}
