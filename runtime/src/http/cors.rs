//! Which other origins' scripts may read answers (CORS, as the Fetch standard defines it).
//!
//! Public reads are for every origin, since they are for every client. What concerns one person, or changes something,
//! is for the configured origins. Pages and the routes of administrators are for no other origin. No answer allows
//! credentials, so a browser never sends a cookie of ours along; a client sends its token itself.
//!
//! The decision depends on the path alone, not on the routes of this process: a gateway passes a preflight to any
//! service.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN,
    VARY,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};

/// `*` covers every header, as no answer allows credentials.
const EVERY: HeaderValue = HeaderValue::from_static("*");
const READ_METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD");
const CLIENT_METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PUT, DELETE");
const REQUEST_HEADERS: HeaderValue = HeaderValue::from_static(
    "authorization, consistency-token, content-type, idempotency-key, if-match, if-none-match, last-event-id, prefer, \
     x-request-id",
);
/// How long a browser keeps the answer to a preflight, in seconds: the longest that browsers allow.
const PREFLIGHT_MAX_AGE: HeaderValue = HeaderValue::from_static("7200");

/// The origins whose scripts may do what clients do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientOrigins(Arc<[HeaderValue]>);

impl ClientOrigins {
    /// Parses a comma-separated list; empty means none.
    ///
    /// # Errors
    /// If an item is not an origin as browsers write it: scheme, host and perhaps a port.
    pub fn parse(text: &str) -> Result<Self, String> {
        let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
        let origins: Option<Vec<HeaderValue>> = items.map(origin).collect();
        let origins = origins
            .ok_or("expected origins, for example https://example.org, separated by commas")?;
        Ok(Self(origins.into()))
    }

    fn contains(&self, origin: &HeaderValue) -> bool {
        self.0.contains(origin)
    }
}

/// Parses an origin: lower case, without a path, and without the scheme's own port, which browsers leave out.
pub fn origin(text: &str) -> Option<HeaderValue> {
    let uri: Uri = text.parse().ok()?;
    let (scheme, authority) = (uri.scheme_str()?, uri.authority()?);
    let own_port = match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => return None,
    };
    let is_canonical = format!("{scheme}://{authority}") == text
        && text == text.to_ascii_lowercase()
        && !authority.as_str().contains('@')
        && authority.port_u16() != own_port;
    is_canonical.then(|| HeaderValue::from_str(text).ok()).flatten()
}

/// Who may use a path from another origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    /// Nobody.
    Closed,
    /// Everyone may read.
    Reads,
    /// The configured origins may read and write.
    Clients,
}

fn access(path: &str) -> Access {
    if matches!(path, "/aggregate" | "/aggregate/" | "/oembed" | "/openapi.json") {
        return Access::Reads;
    }
    let Some(rest) = path.strip_prefix("/v1/") else { return Access::Closed };
    let mut segments = rest.splitn(4, '/');
    match (segments.next(), segments.next(), segments.next()) {
        (Some("aggregates"), None, _) => Access::Reads,
        (Some("budgets"), _, None | Some("aggregate" | "export" | "history")) => Access::Reads,
        (Some("budgets"), Some(_), Some("submissions" | "session")) => Access::Clients,
        _ => Access::Closed,
    }
}

/// What an answer says to scripts of other origins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Grant {
    /// Nothing.
    Nobody,
    /// Every origin may read the answer.
    Everyone,
    /// This origin may read the answer.
    Origin(HeaderValue),
    /// The request's origin may not read the answer, but another one might.
    OtherOrigin,
}

impl Grant {
    /// Decides for a request.
    pub fn of(request: &Request, origins: &ClientOrigins) -> Self {
        let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
        match access(request.uri().path()) {
            Access::Reads if is_read || is_preflight(request) => Self::Everyone,
            Access::Clients => match request.headers().get(ORIGIN) {
                Some(origin) if origins.contains(origin) => Self::Origin(origin.clone()),
                _ => Self::OtherOrigin,
            },
            Access::Reads | Access::Closed => Self::Nobody,
        }
    }

    /// Answers a preflight of another origin; `None` if the request is none, or its path is for no other origin.
    pub fn preflight(&self, request: &Request) -> Option<Response> {
        if !is_preflight(request) {
            return None;
        }
        let methods = match self {
            Self::Nobody => return None,
            Self::OtherOrigin => None,
            Self::Everyone => Some(READ_METHODS),
            Self::Origin(_) => Some(CLIENT_METHODS),
        };
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        let headers = response.headers_mut();
        if let Some(methods) = methods {
            headers.insert(ACCESS_CONTROL_ALLOW_METHODS, methods);
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, REQUEST_HEADERS);
            headers.insert(ACCESS_CONTROL_MAX_AGE, PREFLIGHT_MAX_AGE);
        }
        Some(response)
    }

    /// Adds the headers to an answer.
    pub fn add_to(&self, headers: &mut HeaderMap) {
        match self {
            Self::Nobody => {}
            Self::Everyone => {
                headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, EVERY);
                headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EVERY);
            }
            Self::Origin(origin) => {
                headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
                headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EVERY);
                headers.append(VARY, HeaderValue::from_static("origin"));
            }
            Self::OtherOrigin => {
                headers.append(VARY, HeaderValue::from_static("origin"));
            }
        }
    }
}

fn is_preflight(request: &Request) -> bool {
    *request.method() == Method::OPTIONS
        && request.headers().contains_key(ORIGIN)
        && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const OURS: &str = "https://city.example";

    fn request(method: Method, path: &str, origin: Option<&str>) -> Request {
        let mut request = http::Request::builder().method(&method).uri(path);
        if let Some(origin) = origin {
            request = request.header(ORIGIN, origin);
        }
        if method == Method::OPTIONS {
            request = request.header(ACCESS_CONTROL_REQUEST_METHOD, "PUT");
        }
        request.body(Body::empty()).unwrap()
    }

    fn grant(method: Method, path: &str, origin: Option<&str>) -> Grant {
        Grant::of(&request(method, path, origin), &ClientOrigins::parse(OURS).unwrap())
    }

    #[test]
    fn public_reads_are_for_every_origin() {
        for path in [
            "/aggregate/",
            "/openapi.json",
            "/oembed",
            "/v1/aggregates",
            "/v1/budgets",
            "/v1/budgets/taxes",
            "/v1/budgets/taxes/aggregate",
            "/v1/budgets/taxes/aggregate/stream",
            "/v1/budgets/taxes/export",
            "/v1/budgets/taxes/history",
        ] {
            assert_eq!(grant(Method::GET, path, None), Grant::Everyone, "{path}");
            assert_eq!(grant(Method::OPTIONS, path, Some("https://a.example")), Grant::Everyone);
            assert_eq!(grant(Method::PUT, path, Some(OURS)), Grant::Nobody, "{path}");
        }
    }

    #[test]
    fn what_concerns_one_person_is_for_the_configured_origins_only() {
        for path in [
            "/v1/budgets/taxes/submissions",
            "/v1/budgets/taxes/submissions/batch",
            "/v1/budgets/taxes/submissions/me",
            "/v1/budgets/taxes/session",
        ] {
            for method in [Method::GET, Method::POST, Method::DELETE, Method::OPTIONS] {
                let ours = Grant::Origin(HeaderValue::from_static(OURS));
                assert_eq!(grant(method.clone(), path, Some(OURS)), ours);
                for other in [
                    None,
                    Some("null"),
                    Some("https://city.example.org"),
                    Some("http://city.example"),
                ] {
                    assert_eq!(grant(method.clone(), path, other), Grant::OtherOrigin, "{path}");
                }
            }
        }
    }

    #[test]
    fn pages_and_administration_are_for_no_other_origin() {
        for path in [
            "/",
            "/budgets/taxes",
            "/budgets/taxes/submit",
            "/v1/admin/jobs",
            "/v1/",
            "/v1/budgets/taxes/unknown",
            "/v1/aggregates/x",
            "/metrics",
        ] {
            for method in [Method::GET, Method::POST, Method::OPTIONS] {
                assert_eq!(grant(method, path, Some(OURS)), Grant::Nobody, "{path}");
            }
        }
    }

    #[test]
    fn a_refused_preflight_allows_no_method_and_no_answer_allows_credentials() {
        let path = "/v1/budgets/taxes/submissions";
        for (origin, allows) in [(OURS, true), ("https://evil.example", false)] {
            let request = request(Method::OPTIONS, path, Some(origin));
            let grant = Grant::of(&request, &ClientOrigins::parse(OURS).unwrap());
            let mut response = grant.preflight(&request).unwrap();
            grant.add_to(response.headers_mut());
            let headers = response.headers();
            assert_eq!(headers.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN), allows);
            assert_eq!(headers.contains_key(ACCESS_CONTROL_ALLOW_METHODS), allows);
            assert_eq!(headers[VARY], "origin");
            assert!(!headers.contains_key(http::header::ACCESS_CONTROL_ALLOW_CREDENTIALS));
        }
    }

    #[test]
    fn only_origins_as_browsers_write_them_are_accepted() {
        for (text, count) in [
            ("", 0),
            ("https://a.example", 1),
            ("https://a.example:8443, http://127.0.0.1:3000,http://[::1]:3000", 3),
        ] {
            assert_eq!(
                ClientOrigins::parse(text).map(|origins| origins.0.len()),
                Ok(count),
                "{text}"
            );
        }
        for text in [
            "*",
            "null",
            "a.example",
            "https://a.example/",
            "https://A.example",
            "https://a.example:443",
            "http://a.example:80",
            "https://user@a.example",
            "ftp://a.example",
            "https://a.example https://b.example",
        ] {
            assert!(ClientOrigins::parse(text).is_err(), "{text}");
        }
    }
}
