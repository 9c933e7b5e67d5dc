//! Responses with pages: security headers, caching, compression.

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, LOCATION,
    REFERRER_POLICY, RETRY_AFTER, VARY, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use page::gzip;
use runtime::http::{ChargedBody, ContentCoding, digest, has_already, quoted_etag};

use crate::routes::response::{PUBLIC, note_surrogate_key};

/// No script, style or frame from anywhere else, no inline code, and forms only to this service.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; \
     require-trusted-types-for 'script'",
);
const PERMISSIONS: HeaderValue = HeaderValue::from_static(
    "accelerometer=(), autoplay=(), camera=(), display-capture=(), encrypted-media=(), fullscreen=(), geolocation=(), \
     gyroscope=(), magnetometer=(), microphone=(), midi=(), payment=(), publickey-credentials-get=(), \
     screen-wake-lock=(), usb=(), xr-spatial-tracking=()",
);
const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
const PRIVATE: HeaderValue = HeaderValue::from_static("private, no-store");
const CROSS_ORIGIN_OPENER_POLICY: HeaderName =
    HeaderName::from_static("cross-origin-opener-policy");
const CROSS_ORIGIN_RESOURCE_POLICY: HeaderName =
    HeaderName::from_static("cross-origin-resource-policy");
const PERMISSIONS_POLICY: HeaderName = HeaderName::from_static("permissions-policy");
const SAME_ORIGIN: HeaderValue = HeaderValue::from_static("same-origin");

/// A page's bytes, plain and compressed, with the ETag of each.
#[derive(Debug)]
pub struct PageBytes {
    plain: (Bytes, HeaderValue),
    gzipped: (Bytes, HeaderValue),
}

impl PageBytes {
    /// Compresses a page and computes its ETags.
    pub fn new(html: String) -> Self {
        let digest = digest(html.as_bytes());
        let gzipped = Bytes::from(gzip(html.as_bytes()));
        Self {
            plain: (Bytes::from(html), quoted_etag(&digest)),
            gzipped: (gzipped, quoted_etag(&format!("{digest}.gzip"))),
        }
    }

    /// The memory that the page takes, in bytes.
    pub fn size(&self) -> usize {
        self.plain.0.len() + self.gzipped.0.len()
    }
}

/// Responds with a page that everyone may see, or with `304` if the client has it.
pub(in crate::routes) fn public_page(
    request: &HeaderMap,
    page: &PageBytes,
    surrogate_key: HeaderValue,
) -> Response {
    let compress = accepts_gzip(request);
    let (body, etag) = if compress { &page.gzipped } else { &page.plain };
    let mut response = if has_already(request, etag) {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        Response::new(Body::from(body.clone()))
    };
    let headers = response.headers_mut();
    if compress {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    headers.insert(ETAG, etag.clone());
    headers.insert(CACHE_CONTROL, PUBLIC);
    note_surrogate_key(headers, surrogate_key);
    headers.insert(VARY, HeaderValue::from_static("accept-language, accept-encoding"));
    add_page_headers(headers);
    response
}

/// Responds with a page that is about one person or one request: no cache may store it.
pub(super) fn private_page(status: StatusCode, html: String) -> Response {
    let mut response = Response::new(Body::from(html));
    *response.status_mut() = status;
    response.extensions_mut().insert(ChargedBody);
    response.headers_mut().insert(CACHE_CONTROL, PRIVATE);
    add_page_headers(response.headers_mut());
    response
}

/// Responds with the page of a service that cannot answer now.
pub(super) fn unavailable(html: String) -> Response {
    let mut response = private_page(StatusCode::SERVICE_UNAVAILABLE, html);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

/// Goes to another page of this service.
pub(super) fn see_other(path: &str) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SEE_OTHER;
    // Ids are slugs and queries are percent-encoded: always a valid header.
    let location = HeaderValue::from_str(path).unwrap_or(HeaderValue::from_static("/"));
    response.headers_mut().insert(LOCATION, location);
    response.headers_mut().insert(CACHE_CONTROL, PRIVATE);
    response
}

/// Adds the headers of every page. `Referrer-Policy` is not `no-referrer`, with which our own forms have no `Origin`.
fn add_page_headers(headers: &mut HeaderMap) {
    headers.insert(CONTENT_TYPE, HTML);
    headers.insert(CONTENT_SECURITY_POLICY, POLICY);
    headers.insert(REFERRER_POLICY, SAME_ORIGIN);
    headers.insert(CROSS_ORIGIN_OPENER_POLICY, SAME_ORIGIN);
    headers.insert(PERMISSIONS_POLICY, PERMISSIONS);
    add_resource_headers(headers);
}

/// Adds the headers of every page and asset.
pub(super) fn add_resource_headers(headers: &mut HeaderMap) {
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CROSS_ORIGIN_RESOURCE_POLICY, SAME_ORIGIN);
}

/// Lets pages of other origins load an answer.
pub(super) fn allow_other_origins(headers: &mut HeaderMap) {
    headers.insert(CROSS_ORIGIN_RESOURCE_POLICY, HeaderValue::from_static("cross-origin"));
}

/// Whether the client takes gzip, the only coding that pages are kept in.
pub(super) fn accepts_gzip(request: &HeaderMap) -> bool {
    ContentCoding::accepted(request, &[ContentCoding::Gzip]) == ContentCoding::Gzip
}
