//! The `Idempotency-Key` header (draft-ietf-httpapi-idempotency-key-header), with which a client can repeat a request
//! safely.

use http::{HeaderMap, HeaderName};

use crate::problem::{Problem, ProblemKind};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const MAX_LENGTH: usize = 255;

/// Returns the key of a request, if it has one.
///
/// # Errors
/// If the header is repeated or its value is invalid.
pub fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let malformed = |fault: &str| {
        Problem::new(ProblemKind::Malformed).detail(format!("the header `Idempotency-Key` {fault}"))
    };
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(malformed("appears more than once"));
    }
    let is_valid = |text: &&str| {
        (1..=MAX_LENGTH).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
    };
    let key = value.to_str().ok().filter(is_valid);
    key.map(Some).ok_or_else(|| malformed("must be 1 to 255 visible ASCII characters"))
}
