//! The media types of requests: of the body, and of the response that the client accepts.

use http::HeaderMap;
use http::header::{ACCEPT, CONTENT_TYPE};

/// Returns whether the body has this media type, with any parameters. False without a `Content-Type`.
pub fn has_media_type(headers: &HeaderMap, media_type: &str) -> bool {
    let given = headers.get(CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
    let essence = given.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    essence.eq_ignore_ascii_case(media_type.as_bytes())
}

/// Returns whether a route with a page and a JSON form responds with JSON: `Accept` names JSON and not HTML.
///
/// Browsers name HTML when they open a page, and scripts name JSON.
pub fn prefers_json(headers: &HeaderMap) -> bool {
    let accepts = |media_type| {
        let lines = headers.get_all(ACCEPT).iter();
        lines.into_iter().any(|line| line.to_str().is_ok_and(|line| line.contains(media_type)))
    };
    accepts("application/json") && !accepts("text/html")
}
