//! Refuses posts that a page of another site makes with our cookie.

use http::header::{HOST, ORIGIN};
use http::{HeaderMap, HeaderName};
use runtime::problem::{Problem, ProblemKind};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Requires that one of our own pages sent the request: by `Sec-Fetch-Site` if it is there, else by `Origin`.
///
/// # Errors
/// The problem of a request from elsewhere, or of one that does not say where it comes from.
pub(super) fn require_same_origin(headers: &HeaderMap) -> Result<(), Problem> {
    let ours = match headers.get(SEC_FETCH_SITE) {
        Some(site) => site == "same-origin",
        None => origin_is_host(headers),
    };
    if ours {
        return Ok(());
    }
    Err(Problem::new(ProblemKind::Forbidden).detail(
        "only this service's own pages may send its forms (`Sec-Fetch-Site: same-origin`, or `Origin` of this host); \
         programs use the routes under /v1",
    ))
}

/// Whether `Origin` names the host of the request. Schemes are not compared: TLS ends before the service.
fn origin_is_host(headers: &HeaderMap) -> bool {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let authority = text(ORIGIN).and_then(|origin| origin.split_once("://")).map(|(_, rest)| rest);
    match (authority, text(HOST)) {
        (Some(authority), Some(host)) => authority.eq_ignore_ascii_case(host),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn is_ours(headers: &[(HeaderName, &'static str)]) -> bool {
        let headers =
            headers.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value)));
        require_same_origin(&headers.collect()).is_ok()
    }

    #[test]
    fn only_own_pages_may_post() {
        for headers in [
            &[(SEC_FETCH_SITE, "same-origin")][..],
            &[(SEC_FETCH_SITE, "same-origin"), (ORIGIN, "https://elsewhere"), (HOST, "here")],
            &[(ORIGIN, "https://here:8000"), (HOST, "HERE:8000")],
        ] {
            assert!(is_ours(headers), "{headers:?}");
        }
        for headers in [
            &[][..],
            &[(HOST, "here")],
            &[(SEC_FETCH_SITE, "cross-site"), (ORIGIN, "https://here"), (HOST, "here")],
            &[(SEC_FETCH_SITE, "same-site"), (ORIGIN, "https://here"), (HOST, "here")],
            &[(SEC_FETCH_SITE, "none")],
            &[(ORIGIN, "null"), (HOST, "null")],
            &[(ORIGIN, "https://here.evil"), (HOST, "here")],
            &[(ORIGIN, "https://here:8001"), (HOST, "here:8000")],
        ] {
            assert!(!is_ours(headers), "{headers:?}");
        }
    }
}
