//! Whether a request comes from an administrator who may do what it asks for. Pure: credentials, a request's head and
//! the role that is needed in, a principal or why not out.

use http::HeaderMap;
use http::HeaderValue;
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::request::Parts;

use super::credentials::{Credentials, Principal, TOKEN_MAX, TOKEN_MIN};
use super::role::Role;
use super::this_machine::is_local;
use crate::problem::{Problem, ProblemKind};

/// Why a request is not let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// No credential is configured, and it does not come from this machine.
    NotLocal,
    /// It shows no token.
    NoToken,
    /// It shows one that nobody has.
    WrongToken,
    /// It is somebody's who may do less.
    RoleTooSmall(Principal, Role),
}

impl Refusal {
    /// The problem to answer.
    pub(super) fn problem(&self) -> Problem {
        let unauthorized = |challenge, detail: String| {
            Problem::new(ProblemKind::Unauthorized)
                .detail(detail)
                .header(WWW_AUTHENTICATE, HeaderValue::from_static(challenge))
        };
        match self {
            Self::NotLocal => Problem::new(ProblemKind::Forbidden).detail(
                "no administrators' tokens are configured, so only clients on this machine may do this; \
                 `admin.tokens_file` names a file of them",
            ),
            // RFC 6750 section 3.1: without credentials, no error is named.
            Self::NoToken => unauthorized(
                "Bearer",
                "an administrator's token is needed: `Authorization: Bearer TOKEN`".to_owned(),
            ),
            Self::WrongToken => unauthorized(
                "Bearer error=\"invalid_token\"",
                format!("the token is nobody's; tokens have {TOKEN_MIN} to {TOKEN_MAX} characters"),
            ),
            Self::RoleTooSmall(principal, needed) => Problem::new(ProblemKind::Forbidden).detail(
                format!("this needs the role {needed}, and {} has {}", principal.name, principal.role),
            ),
        }
    }
}

/// Decides who asks, and whether they may.
///
/// # Errors
/// Why not.
pub(super) fn decide(
    credentials: Option<&Credentials>,
    request: &Parts,
    needed: Role,
) -> Result<Principal, Refusal> {
    let principal = match credentials {
        None if is_local(request) => Principal::local(),
        None => return Err(Refusal::NotLocal),
        Some(credentials) => {
            let token = bearer(&request.headers).ok_or(Refusal::NoToken)?;
            credentials.bearer_of(token).ok_or(Refusal::WrongToken)?.clone()
        }
    };
    if principal.role < needed {
        return Err(Refusal::RoleTooSmall(principal, needed));
    }
    Ok(principal)
}

fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.as_bytes().split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
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
    const SHORT: &str = "a-token-of-31-characters-is-shor";

    fn credentials() -> Credentials {
        let short = &SHORT[..31];
        let lines = [
            ("vera", "viewer", VIEWER),
            ("otto", "operator", OPERATOR),
            ("anna", "admin", ADMIN),
            ("sam", "admin", short),
        ];
        let line = |(name, role, token): (&str, &str, &str)| {
            let digest: String =
                Sha256::digest(token).iter().map(|byte| format!("{byte:02x}")).collect();
            format!("{name} {role} sha256:{digest}\n")
        };
        Credentials::parse(&lines.map(line).concat()).unwrap()
    }

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
    fn without_credentials_only_this_machine_itself_is_an_administrator() {
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
            match decide(None, &request(peer, headers), Role::Admin) {
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
        let from_nowhere = Request::new(()).into_parts().0;
        assert_eq!(decide(None, &from_nowhere, Role::Viewer), Err(Refusal::NotLocal));
    }

    #[test]
    fn with_credentials_nothing_but_a_whole_token_counts() {
        let credentials = credentials();
        let right = format!("bearer  {ADMIN} ");
        let right = request("192.0.2.1:5", &[("authorization", &right)]);
        assert_eq!(decide(Some(&credentials), &right, Role::Admin).unwrap().name(), "anna");
        let wrong = |text: &str| {
            let headers = [("authorization", text)];
            decide(Some(&credentials), &request("127.0.0.1:5", &headers), Role::Viewer).unwrap_err()
        };
        for longer_or_shorter in [format!("{ADMIN}a"), ADMIN[1..].to_owned(), String::new()] {
            assert_eq!(wrong(&format!("Bearer {longer_or_shorter}")), Refusal::WrongToken);
        }
        // Its digest is there, but a token may not be that short.
        assert_eq!(wrong(&format!("Bearer {}", &SHORT[..31])), Refusal::WrongToken);
        for other in ["Bear", "", &format!("Basic {ADMIN}"), ADMIN] {
            assert_eq!(wrong(other), Refusal::NoToken);
        }
        // This machine has no rights of its own then.
        let none = request("127.0.0.1:5", &[]);
        assert_eq!(decide(Some(&credentials), &none, Role::Viewer), Err(Refusal::NoToken));
    }

    #[test]
    fn a_role_may_do_what_those_before_it_may_and_nothing_else() {
        let credentials = credentials();
        for (token, role) in
            [(VIEWER, Role::Viewer), (OPERATOR, Role::Operator), (ADMIN, Role::Admin)]
        {
            for needed in Role::ALL {
                let shown = format!("Bearer {token}");
                let request = request("192.0.2.1:5", &[("authorization", &shown)]);
                match decide(Some(&credentials), &request, needed) {
                    Ok(who) => assert!(role >= needed && who.role() == role, "{role} for {needed}"),
                    Err(refusal) => {
                        assert!(role < needed, "{role} for {needed}");
                        assert_eq!(refusal.problem().kind(), ProblemKind::Forbidden);
                        assert!(!format!("{refusal:?}").contains(token));
                    }
                }
            }
        }
    }

    #[test]
    fn a_refusal_says_how_to_show_a_token_as_rfc_6750_has_it() {
        for (refusal, challenge) in
            [(Refusal::NoToken, "Bearer"), (Refusal::WrongToken, "Bearer error=\"invalid_token\"")]
        {
            let answer = refusal.problem().into_response();
            assert_eq!(answer.status().as_u16(), 401);
            assert_eq!(answer.headers()["www-authenticate"], challenge);
        }
    }
}
