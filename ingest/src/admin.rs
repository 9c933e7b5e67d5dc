//! Who is an administrator: whoever shows the token or, where none is set up, whoever sits at this machine.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use axum::extract::ConnectInfo;
use http::header::{AUTHORIZATION, FORWARDED, HOST, ORIGIN, WWW_AUTHENTICATE};
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, HeaderValue};
use runtime::problem::{Problem, ProblemKind};
use subtle::ConstantTimeEq;

/// The text that administrators show. Never printed.
#[derive(Clone)]
pub struct AdminToken(String);

impl AdminToken {
    /// Takes a token: visible ASCII characters, at least one.
    pub fn new(text: &str) -> Option<Self> {
        let fit = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        fit.then(|| Self(text.to_owned()))
    }

    /// Reads the token of a file; no path, no token.
    ///
    /// # Errors
    /// What would be right, when the file cannot be read or holds no token.
    pub fn read_file(path: &str) -> Result<Option<Self>, String> {
        if path.is_empty() {
            return Ok(None);
        }
        let text = std::fs::read_to_string(path)
            .map_err(|error| format!("expected a file that can be read: {error}"))?;
        match Self::new(text.trim()) {
            Some(token) => Ok(Some(token)),
            None => Err("expected a file with one word of visible ASCII characters".to_owned()),
        }
    }

    fn is(&self, shown: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(shown).into()
    }
}

impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdminToken(hidden)")
    }
}

/// What made a client an administrator: for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Administrator {
    /// The token.
    Token,
    /// The machine it is on.
    Local,
}

/// Decides whether a request comes from an administrator.
///
/// # Errors
/// The problem to answer if it does not.
pub(crate) fn administrator(
    token: Option<&AdminToken>,
    request: &Parts,
) -> Result<Administrator, Problem> {
    let Some(token) = token else {
        return if is_local(request) {
            Ok(Administrator::Local)
        } else {
            Err(Problem::new(ProblemKind::Forbidden).detail(
                "no administrators' token is configured, so only clients on this machine may do this; \
                 `admin.token_file` sets one",
            ))
        };
    };
    match bearer(&request.headers) {
        Some(shown) if token.is(shown) => Ok(Administrator::Token),
        shown => {
            let detail =
                if shown.is_some() { "the token is not valid" } else { "a token is needed" };
            Err(Problem::new(ProblemKind::Unauthorized)
                .detail(detail)
                .header(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")))
        }
    }
}

fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.as_bytes().split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

/// Whether the client itself, and not somebody through a proxy or a web page, is on this machine.
fn is_local(request: &Parts) -> bool {
    let peer = request.extensions.get::<ConnectInfo<SocketAddr>>();
    let headers = &request.headers;
    peer.is_some_and(|peer| is_loopback(peer.0.ip()))
        && !headers.contains_key(FORWARDED)
        && headers.get_all("x-forwarded-for").iter().all(is_forwarded_from_here)
        // A page of another site that a browser on this machine shows can reach us, too: it names itself here.
        && headers.get(HOST).is_none_or(|host| names_this_machine(host.as_bytes()))
        && headers.get(ORIGIN).is_none_or(|origin| {
            let origin = origin.as_bytes();
            let authority = origin.strip_prefix(b"http://").or(origin.strip_prefix(b"https://"));
            authority.is_some_and(names_this_machine)
        })
}

fn is_forwarded_from_here(value: &HeaderValue) -> bool {
    value.to_str().is_ok_and(|clients| {
        clients.split(',').all(|client| client.trim().parse().is_ok_and(is_loopback))
    })
}

fn names_this_machine(authority: &[u8]) -> bool {
    let Ok(authority) = Authority::try_from(authority) else { return false };
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || host.parse().is_ok_and(is_loopback)
}

fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use http::Request;

    fn request(peer: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::new(());
        let peer: SocketAddr = peer.parse().unwrap();
        request.extensions_mut().insert(ConnectInfo(peer));
        for (name, value) in headers {
            let name: http::HeaderName = name.parse().unwrap();
            request.headers_mut().append(name, value.parse().unwrap());
        }
        request.into_parts().0
    }

    #[test]
    fn without_a_token_only_this_machine_itself_is_an_administrator() {
        type Headers = &'static [(&'static str, &'static str)];
        let cases: [(&str, Headers, bool); 13] = [
            ("127.0.0.1:5", &[], true),
            ("[::1]:5", &[("host", "localhost:8000")], true),
            ("[::ffff:127.0.0.1]:5", &[("host", "[::1]:8000")], true),
            ("127.0.0.1:5", &[("x-forwarded-for", "127.0.0.1, ::1")], true),
            ("127.0.0.1:5", &[("origin", "http://127.0.0.1:8000")], true),
            ("192.0.2.1:5", &[], false),
            ("192.0.2.1:5", &[("x-forwarded-for", "127.0.0.1")], false),
            ("127.0.0.1:5", &[("x-forwarded-for", "127.0.0.1, 192.0.2.1")], false),
            ("127.0.0.1:5", &[("x-forwarded-for", "::1"), ("x-forwarded-for", "x")], false),
            ("127.0.0.1:5", &[("forwarded", "for=127.0.0.1")], false),
            ("127.0.0.1:5", &[("origin", "http://evil.example")], false),
            ("127.0.0.1:5", &[("origin", "null")], false),
            ("127.0.0.1:5", &[("host", "evil.example:8000")], false),
        ];
        for (peer, headers, expected) in cases {
            let decision = administrator(None, &request(peer, headers));
            match decision {
                Ok(who) => assert!(expected && who == Administrator::Local, "{peer} {headers:?}"),
                Err(problem) => {
                    assert!(!expected, "{peer} {headers:?}");
                    assert_eq!(problem.kind(), ProblemKind::Forbidden);
                }
            }
        }
        assert!(administrator(None, &Request::new(()).into_parts().0).is_err());
    }

    #[test]
    fn with_a_token_nothing_but_the_token_counts() {
        let token = AdminToken::new("let-me-in").unwrap();
        let right = request("192.0.2.1:5", &[("authorization", "bearer let-me-in")]);
        assert_eq!(administrator(Some(&token), &right).unwrap(), Administrator::Token);
        for headers in [
            &[][..],
            &[("authorization", "Bearer let-me-inn")],
            &[("authorization", "Bearer ")],
            &[("authorization", "Bear")],
            &[("authorization", "Basic let-me-in")],
        ] {
            let problem =
                administrator(Some(&token), &request("127.0.0.1:5", headers)).unwrap_err();
            assert_eq!(problem.kind(), ProblemKind::Unauthorized);
        }
    }

    #[test]
    fn a_token_is_one_word_and_is_never_printed() {
        assert!(AdminToken::new("").is_none());
        assert!(AdminToken::new("two words").is_none());
        assert!(!format!("{:?}", AdminToken::new("secret")).contains("secret"));
    }

    #[test]
    fn the_token_of_a_file_is_taken_without_its_last_newline() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        std::fs::write(&path, "let-me-in\n").unwrap();
        let token = AdminToken::read_file(path.to_str().unwrap()).unwrap();
        assert!(token.unwrap().is(b"let-me-in"));
        std::fs::write(&path, "\n").unwrap();
        assert!(AdminToken::read_file(path.to_str().unwrap()).is_err());
        assert!(AdminToken::read_file(directory.path().join("none").to_str().unwrap()).is_err());
        assert!(AdminToken::read_file("").unwrap().is_none());
    }
}
