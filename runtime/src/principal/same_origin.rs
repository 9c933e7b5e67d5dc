//! Whether one of our own pages sent a request: refuses what a page of another site does with our cookies.

use http::header::{HOST, ORIGIN};
use http::{HeaderMap, HeaderName};

use crate::problem::{Problem, ProblemKind};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Which page sent a request, as the browser says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestOrigin {
    /// One of our own pages.
    Own,
    /// A page of another site, or nothing that a page can be.
    Other,
    /// No browser says so: a program, or an old browser.
    Unknown,
}

impl RequestOrigin {
    /// Reads the origin: by `Sec-Fetch-Site` if it is there, else by `Origin`.
    pub fn of(headers: &HeaderMap) -> Self {
        let is_own = match headers.get(SEC_FETCH_SITE) {
            Some(site) => site == "same-origin",
            None if headers.contains_key(ORIGIN) => origin_is_host(headers),
            None => return Self::Unknown,
        };
        if is_own { Self::Own } else { Self::Other }
    }
}

/// Requires that one of our own pages sent the request.
///
/// # Errors
/// The problem of a request from elsewhere, or of one that does not say where it comes from.
pub fn require_same_origin(headers: &HeaderMap) -> Result<(), Problem> {
    if RequestOrigin::of(headers) == RequestOrigin::Own {
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
