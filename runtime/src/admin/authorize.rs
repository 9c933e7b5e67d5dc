//! Authorizes a request: from credentials, request head and required role to a principal or a refusal. Pure.

use http::HeaderMap;
use http::HeaderValue;
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::request::Parts;

use super::credentials::{Credentials, MAX_TOKEN_LENGTH, MIN_TOKEN_LENGTH, Principal};
use super::local_client::is_local;
use super::role::Role;
use crate::problem::{Problem, ProblemKind};

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// No credentials are configured, and the client is not on this machine.
    NotLocal,
    /// The request has no token.
    NoToken,
    /// The token is unknown.
    WrongToken,
    /// The role of the principal does not suffice for the required role.
    InsufficientRole(Principal, Role),
}

impl Refusal {
    /// Returns the problem to respond with.
    pub(super) fn problem(&self) -> Problem {
        let unauthorized = |challenge, detail: String| {
            Problem::new(ProblemKind::Unauthorized)
                .detail(detail)
                .header(WWW_AUTHENTICATE, HeaderValue::from_static(challenge))
        };
        match self {
            Self::NotLocal => Problem::new(ProblemKind::Forbidden).detail(
                "no administrator tokens are configured, so only clients on the server's machine and of its account are \
                 allowed, and no proxy; configure `admin.tokens_file` to allow others",
            ),
            // RFC 6750 section 3.1: no error code if the request has no credentials.
            Self::NoToken => unauthorized(
                "Bearer",
                "an administrator token is required: `Authorization: Bearer TOKEN`".to_owned(),
            ),
            Self::WrongToken => unauthorized(
                "Bearer error=\"invalid_token\"",
                format!("the token is unknown; tokens have {MIN_TOKEN_LENGTH} to {MAX_TOKEN_LENGTH} characters"),
            ),
            Self::InsufficientRole(principal, required) => Problem::new(ProblemKind::Forbidden).detail(
                format!("this route requires the role {required}; {} has the role {}", principal.name, principal.role),
            ),
        }
    }
}

/// Authenticates the client and checks its role.
///
/// # Errors
/// The refusal.
pub(super) fn authorize(
    credentials: Option<&Credentials>,
    request: &Parts,
    required: Role,
) -> Result<Principal, Refusal> {
    let principal = match credentials {
        None if is_local(request) => Principal::local(),
        None => return Err(Refusal::NotLocal),
        Some(credentials) => {
            let token = bearer_token(&request.headers).ok_or(Refusal::NoToken)?;
            credentials.find_by_token(token).ok_or(Refusal::WrongToken)?.clone()
        }
    };
    if !principal.role.includes(required) {
        return Err(Refusal::InsufficientRole(principal, required));
    }
    Ok(principal)
}

/// Returns the token of `Authorization: Bearer`. An empty token is one too, and wrong: not a request without any.
pub(crate) fn bearer_token(headers: &HeaderMap) -> Option<&[u8]> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.as_bytes().split_at_checked(6)?;
    let is_separate = token.first().is_none_or(|byte| *byte == b' ');
    (is_separate && scheme.eq_ignore_ascii_case(b"bearer")).then(|| token.trim_ascii())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::net::SocketAddr;

    use axum::extract::ConnectInfo;
    use axum::response::IntoResponse;
    use http::Request;
    use sha2::{Digest, Sha256};

    use super::*;

    const VIEWER: &str = "vvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvv";
    const OPERATOR: &str = "oooooooooooooooooooooooooooooooo";
    const ADMIN: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const SUBMITTER: &str = "ssssssssssssssssssssssssssssssss";
    const SHORT: &str = "a-token-of-31-characters-is-shor";

    fn credentials() -> Credentials {
        let short = &SHORT[..31];
        let lines = [
            ("vera", "viewer", VIEWER),
            ("otto", "operator", OPERATOR),
            ("anna", "admin", ADMIN),
            ("load", "submitter", SUBMITTER),
            ("sam", "admin", short),
        ];
        let line = |(name, role, token): (&str, &str, &str)| {
            let digest = hex::encode(Sha256::digest(token));
            format!("{name} {role} sha256:{digest}\n")
        };
        Credentials::parse(&lines.map(line).concat()).unwrap()
    }

    /// A request from an address, of this machine's name unless the headers say otherwise.
    fn request(peer: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::new(());
        if headers.iter().all(|(name, _)| *name != "host") {
            request.headers_mut().insert("host", "localhost:8000".parse().unwrap());
        }
        let peer: SocketAddr = peer.parse().unwrap();
        request.extensions_mut().insert(ConnectInfo(peer));
        for (name, value) in headers {
            let name: http::HeaderName = name.parse().unwrap();
            request.headers_mut().append(name, value.parse().unwrap());
        }
        request.into_parts().0
    }

    #[test]
    fn without_credentials_only_local_clients_are_administrators() {
        type Headers = &'static [(&'static str, &'static str)];
        let cases: [(&str, Headers, bool); 19] = [
            ("127.0.0.1:5", &[], true),
            ("[::1]:5", &[("host", "localhost:8000")], true),
            ("[::ffff:127.0.0.1]:5", &[("host", "[::1]:8000")], true),
            ("127.0.0.1:5", &[("origin", "http://127.0.0.1:8000")], true),
            ("192.0.2.1:5", &[], false),
            ("192.0.2.1:5", &[("x-forwarded-for", "127.0.0.1")], false),
            // Each is a sign of a proxy, whatever the proxy says.
            ("127.0.0.1:5", &[("x-forwarded-for", "127.0.0.1")], false),
            ("127.0.0.1:5", &[("x-forwarded-host", "localhost")], false),
            ("127.0.0.1:5", &[("forwarded", "for=127.0.0.1")], false),
            ("127.0.0.1:5", &[("via", "1.1 proxy")], false),
            ("127.0.0.1:5", &[("x-real-ip", "127.0.0.1")], false),
            ("127.0.0.1:5", &[("true-client-ip", "127.0.0.1")], false),
            ("127.0.0.1:5", &[("cf-connecting-ip", "127.0.0.1")], false),
            ("127.0.0.1:5", &[("cdn-loop", "cloudflare")], false),
            ("127.0.0.1:5", &[("x-envoy-external-address", "127.0.0.1")], false),
            ("127.0.0.1:5", &[("x-amzn-trace-id", "Root=1")], false),
            ("127.0.0.1:5", &[("origin", "http://evil.example")], false),
            ("127.0.0.1:5", &[("origin", "null")], false),
            ("127.0.0.1:5", &[("host", "evil.example:8000")], false),
        ];
        for (peer, headers, expected) in cases {
            match authorize(None, &request(peer, headers), Role::Admin) {
                Ok(who) => {
                    assert!(expected, "{peer} {headers:?}");
                    assert_eq!((who.name(), who.role()), ("local", Role::Admin));
                }
                Err(refusal) => {
                    assert!(!expected, "{peer} {headers:?}");
                    assert_eq!(refusal.problem().kind(), ProblemKind::Forbidden);
                }
            }
        }
        let mut old = request("127.0.0.1:5", &[("host", "127.0.0.1:8000")]);
        old.version = http::Version::HTTP_10;
        assert_eq!(authorize(None, &old, Role::Viewer), Err(Refusal::NotLocal));
        let mut without_host = request("127.0.0.1:5", &[]);
        without_host.headers.remove("host");
        assert_eq!(authorize(None, &without_host, Role::Viewer), Err(Refusal::NotLocal));
        let mut to_another_site = request("127.0.0.1:5", &[]);
        to_another_site.uri = "http://evil.example/v1/admin".parse().unwrap();
        assert_eq!(authorize(None, &to_another_site, Role::Viewer), Err(Refusal::NotLocal));
        let without_peer = Request::new(()).into_parts().0;
        assert_eq!(authorize(None, &without_peer, Role::Viewer), Err(Refusal::NotLocal));
    }

    #[test]
    fn with_credentials_only_a_complete_token_is_accepted() {
        let credentials = credentials();
        let right = format!("bearer  {ADMIN} ");
        let right = request("192.0.2.1:5", &[("authorization", &right)]);
        assert_eq!(authorize(Some(&credentials), &right, Role::Admin).unwrap().name(), "anna");
        let wrong = |text: &str| {
            let headers = [("authorization", text)];
            authorize(Some(&credentials), &request("127.0.0.1:5", &headers), Role::Viewer)
                .unwrap_err()
        };
        for longer_or_shorter in [format!("{ADMIN}a"), ADMIN[1..].to_owned(), String::new()] {
            assert_eq!(wrong(&format!("Bearer {longer_or_shorter}")), Refusal::WrongToken);
        }
        // What a connection makes of an empty token: it takes spaces off the end.
        assert_eq!(wrong("Bearer"), Refusal::WrongToken);
        // The digest matches, but the token is too short.
        assert_eq!(wrong(&format!("Bearer {}", &SHORT[..31])), Refusal::WrongToken);
        for other in ["Bear", "", &format!("Bearer{ADMIN}"), &format!("Basic {ADMIN}"), ADMIN] {
            assert_eq!(wrong(other), Refusal::NoToken);
        }
        // Local clients have no rights once credentials are configured.
        let none = request("127.0.0.1:5", &[]);
        assert_eq!(authorize(Some(&credentials), &none, Role::Viewer), Err(Refusal::NoToken));
    }

    #[test]
    fn a_role_allows_what_it_includes_and_nothing_else() {
        let credentials = credentials();
        for (token, role) in [
            (SUBMITTER, Role::Submitter),
            (VIEWER, Role::Viewer),
            (OPERATOR, Role::Operator),
            (ADMIN, Role::Admin),
        ] {
            for required in Role::ALL {
                let header = format!("Bearer {token}");
                let request = request("192.0.2.1:5", &[("authorization", &header)]);
                match authorize(Some(&credentials), &request, required) {
                    Ok(who) => {
                        assert!(
                            role.includes(required) && who.role() == role,
                            "{role} for {required}"
                        )
                    }
                    Err(refusal) => {
                        assert!(!role.includes(required), "{role} for {required}");
                        assert_eq!(refusal.problem().kind(), ProblemKind::Forbidden);
                        assert!(!format!("{refusal:?}").contains(token));
                    }
                }
            }
        }
    }

    #[test]
    fn refusals_have_the_challenges_of_rfc_6750() {
        for (refusal, challenge) in
            [(Refusal::NoToken, "Bearer"), (Refusal::WrongToken, "Bearer error=\"invalid_token\"")]
        {
            let response = refusal.problem().into_response();
            assert_eq!(response.status().as_u16(), 401);
            assert_eq!(response.headers()["www-authenticate"], challenge);
        }
    }
}
