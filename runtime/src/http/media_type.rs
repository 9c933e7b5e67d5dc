//! The media type of a request body.

use http::HeaderMap;
use http::header::CONTENT_TYPE;

/// Returns whether the body has this media type, with any parameters. False without a `Content-Type`.
pub fn has_media_type(headers: &HeaderMap, media_type: &str) -> bool {
    let given = headers.get(CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
    let essence = given.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    essence.eq_ignore_ascii_case(media_type.as_bytes())
}
