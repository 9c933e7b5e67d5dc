//! `GET /openapi.json` and `GET /docs`: the API for machines and for readers.
//!
//! The document is the committed `docs/openapi.json`, which a test compares with what the routes say of themselves.

use std::sync::LazyLock;

use axum::Router;
use axum::response::Response;
use axum::routing::get;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use page::html::contract_page;
use runtime::http::etag_of;

use super::pages::{PageBytes, public_page};
use super::response::{cacheable, note_surrogate_key};
use crate::answer::Rendered;

static DOCUMENT: &str = include_str!("../../../docs/openapi.json");
const KEY: HeaderValue = HeaderValue::from_static("contract");

static JSON: LazyLock<Rendered> = LazyLock::new(|| {
    Rendered::new(Bytes::from_static(DOCUMENT.as_bytes()), etag_of(DOCUMENT.as_bytes()))
});

static PAGE: LazyLock<PageBytes> = LazyLock::new(|| {
    // A test rules out that the file is not JSON.
    PageBytes::new(contract_page(&serde_json::from_str(DOCUMENT).unwrap_or_default()))
});

/// Builds the routes.
pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new().route("/openapi.json", get(document)).route("/docs", get(page))
}

async fn document(request: HeaderMap) -> Response {
    let mut response = cacheable(&request, &JSON);
    note_surrogate_key(response.headers_mut(), KEY);
    response
}

async fn page(request: HeaderMap) -> Response {
    public_page(&request, &PAGE, KEY)
}
