//! Refuses requests without a valid `Host` (RFC 9112, 3.2): proxies and services could take them for different sites.

use std::net::Ipv6Addr;

use axum::extract::Request;
use http::Version;
use http::header::HOST;

use crate::problem::{Problem, ProblemKind};

/// Checks that a request has one valid `Host`. Only HTTP/1.0 may have none.
///
/// # Errors
/// The problem of a request that does not.
pub(super) fn check_host(request: &Request) -> Result<(), Problem> {
    let mut hosts = request.headers().get_all(HOST).iter();
    let detail = match (hosts.next(), hosts.next()) {
        (None, _) if request.version() < Version::HTTP_11 => return Ok(()),
        (None, _) => "the request has no `Host`",
        (Some(_), Some(_)) => "the request has more than one `Host`",
        (Some(host), None) if is_host(host.as_bytes()) => return Ok(()),
        (Some(_), None) => "the `Host` is not a host name or address with an optional port",
    };
    Err(Problem::new(ProblemKind::Malformed).detail(detail))
}

/// Whether this is `uri-host [ ":" port ]` (RFC 9110, 7.2). The host may be empty.
fn is_host(value: &[u8]) -> bool {
    let (host_is_valid, rest) = if let Some(literal) = value.strip_prefix(b"[") {
        let Some(end) = literal.iter().position(|byte| *byte == b']') else { return false };
        let (address, rest) = literal.split_at(end);
        let address = std::str::from_utf8(address).ok();
        (
            address.is_some_and(|text| text.parse::<Ipv6Addr>().is_ok()),
            rest.get(1..).unwrap_or_default(),
        )
    } else {
        let end = value.iter().position(|byte| *byte == b':').unwrap_or(value.len());
        let (name, rest) = value.split_at(end);
        (is_registered_name(name), rest)
    };
    let port_is_valid = match rest {
        [] => true,
        [b':', port @ ..] => port.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    host_is_valid && port_is_valid
}

/// Whether this is a `reg-name` (RFC 3986, 3.2.2), which an IPv4 address is too.
fn is_registered_name(name: &[u8]) -> bool {
    let mut bytes = name.iter();
    while let Some(byte) = bytes.next() {
        let is_valid = match byte {
            b'%' => bytes.by_ref().take(2).filter(|digit| digit.is_ascii_hexdigit()).count() == 2,
            byte => byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(byte),
        };
        if !is_valid {
            return false;
        }
    }
    true
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_or_an_address_with_an_optional_port() {
        for host in [
            "",
            "localhost",
            "example.org",
            "example.org:",
            "example.org:8000",
            ":8000",
            "api_1.x",
            "192.0.2.1:80",
            "[::1]",
            "[2001:db8::1]:8000",
            "caf%C3%A9.example",
            "a!$&'()*+,;=~",
        ] {
            assert!(is_host(host.as_bytes()), "{host:?}");
        }
        for host in [
            "a b",
            "a/b",
            "user@a",
            "a:b",
            "a:1:2",
            "::1",
            "[::1",
            "[::1]x",
            "[a]",
            "[]",
            "a%2",
            "a%zz",
            "a?b",
            "a#b",
            "http://a",
            "a,b c",
            "caf\u{e9}",
            "a\\b",
            "a\"b",
        ] {
            assert!(!is_host(host.as_bytes()), "{host:?}");
        }
    }

    #[test]
    fn only_http_1_0_may_have_no_host_and_no_version_may_have_two() {
        let refused = |version, hosts: &[&str]| {
            let mut request = Request::new(axum::body::Body::empty());
            *request.version_mut() = version;
            for host in hosts {
                request.headers_mut().append(HOST, host.parse().unwrap());
            }
            check_host(&request).is_err()
        };
        assert!(!refused(Version::HTTP_10, &[]) && refused(Version::HTTP_11, &[]));
        for version in [Version::HTTP_10, Version::HTTP_11] {
            assert!(!refused(version, &["a"]) && refused(version, &["a", "a"]));
            assert!(refused(version, &["a b"]));
        }
    }
}
