//! Refuses bodies with another coding than `chunked` (RFC 9112, 6.1): two servers in a row could disagree on where they
//! end. The HTTP library does not decode others, and lets them pass.

use http::HeaderMap;
use http::header::TRANSFER_ENCODING;

use crate::problem::{Problem, ProblemKind};

/// Checks that a body has no coding but `chunked`.
///
/// # Errors
/// The problem of a request that has another.
pub(super) fn check_transfer_coding(headers: &HeaderMap) -> Result<(), Problem> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let is_delimited = match (codings.next(), codings.next()) {
        (None, _) => true,
        (Some(coding), None) => coding.as_bytes().eq_ignore_ascii_case(b"chunked"),
        (Some(_), Some(_)) => false,
    };
    if is_delimited {
        return Ok(());
    }
    Err(Problem::new(ProblemKind::Malformed)
        .detail("the only `Transfer-Encoding` of a body is `chunked`"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_body_has_no_coding_but_chunked() {
        let is_accepted = |codings: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for coding in codings {
                headers.append(TRANSFER_ENCODING, coding.parse().unwrap());
            }
            check_transfer_coding(&headers).is_ok()
        };
        for codings in [&["chunked"][..], &["Chunked"], &[]] {
            assert!(is_accepted(codings), "{codings:?}");
        }
        for codings in [
            &["gzip, chunked"][..],
            &["chunked, chunked"],
            &[",chunked"],
            &["identity", "chunked"],
            &["chunked", "chunked"],
        ] {
            assert!(!is_accepted(codings), "{codings:?}");
        }
    }
}
