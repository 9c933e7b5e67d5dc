//! `GET /assets/{digest}/{file}`: style sheet, scripts and icon.

use axum::body::Body;
use axum::extract::Path;
use axum::response::Response;
use http::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, VARY};
use http::{HeaderMap, HeaderValue};
use page::assets::Assets;
use runtime::problem::{Problem, ProblemKind};

use super::html_response::{accepts_gzip, add_resource_headers};

const FOR_EVER: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");
const NOT_AT_ALL: HeaderValue = HeaderValue::from_static("no-store");

/// Serves a file. Under another digest, of another release, today's file is served but not kept.
pub(super) async fn file(
    Path((digest, file)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let assets = Assets::embedded();
    let asset = assets
        .get(&file)
        .ok_or_else(|| Problem::new(ProblemKind::NotFound).detail("there is no such file"))?;
    let compress = accepts_gzip(&headers);
    let body =
        if compress { Body::from(asset.gzipped.as_slice()) } else { Body::from(asset.content) };
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    if compress {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(asset.media_type));
    headers.insert(CACHE_CONTROL, if digest == assets.digest() { FOR_EVER } else { NOT_AT_ALL });
    headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
    add_resource_headers(headers);
    Ok(response)
}
