//! `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header): the name that a client gives what it asks for, so that
//! asking again asks for nothing more.

use http::{HeaderMap, HeaderName};

use crate::problem::{Problem, ProblemKind};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const LONGEST: usize = 255;

/// The key of a request, if it has one.
///
/// # Errors
/// When it has several, or one that is no key.
pub fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let malformed = |fault: &str| {
        Problem::new(ProblemKind::Malformed).detail(format!("the header `Idempotency-Key` {fault}"))
    };
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(malformed("is there more than once"));
    }
    let fit = |text: &&str| {
        (1..=LONGEST).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
    };
    let key = value.to_str().ok().filter(fit);
    key.map(Some).ok_or_else(|| malformed("must be 1 to 255 visible ASCII characters"))
}
