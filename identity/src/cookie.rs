//! The cookies of a browser, other than a person's: of a session, and of an address that waits for its one-time code.
//!
//! Each budget has its own cookies, so that a person's budgets cannot be joined.

use http::header::ORIGIN;
use http::{HeaderMap, HeaderName};
use jiff::SignedDuration;
use schemas::{Budget, CODE_LIFETIME};

use crate::email::EmailAddress;

/// The cookie of a session.
const SESSION_COOKIE: &str = "allocator_session";
/// The cookie of an address that was sent a one-time code, so that the form for the code need not have it.
const EMAIL_COOKIE: &str = "allocator_email";
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Returns the token of a session in the request's `Cookie` headers. Nothing of it is verified.
pub(crate) fn session<'a>(headers: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    values(headers, SESSION_COOKIE).find(|value| !value.is_empty())
}

/// Returns the address of the request's `Cookie` headers for which a one-time code was asked; `None` without one.
pub fn email<'a>(headers: impl IntoIterator<Item = &'a str>) -> Option<EmailAddress> {
    values(headers, EMAIL_COOKIE).find_map(|value| EmailAddress::parse(value).ok())
}

/// Returns the values of all cookies with a name.
pub(crate) fn values<'a>(
    headers: impl IntoIterator<Item = &'a str>,
    name: &'static str,
) -> impl Iterator<Item = &'a str> {
    headers
        .into_iter()
        .flat_map(|header| header.split(';'))
        .filter_map(|cookie| cookie.trim().split_once('='))
        .filter(move |(found, _)| *found == name)
        .map(|(_, value)| value)
}

/// Builds the `Set-Cookie` headers of a session.
pub(crate) fn set_session(
    budget: &Budget,
    token: &str,
    lifetime: SignedDuration,
    secure: bool,
) -> Vec<String> {
    set(budget, SESSION_COOKIE, token, lifetime, secure)
}

/// Builds the `Set-Cookie` headers that end the session of a browser.
pub(crate) fn clear_session(budget: &Budget, secure: bool) -> Vec<String> {
    set(budget, SESSION_COOKIE, "", SignedDuration::ZERO, secure)
}

/// Builds the `Set-Cookie` header that keeps an address for as long as its one-time code is valid, for pages alone.
/// No character of an address needs to be escaped in a cookie.
pub fn set_email(budget: &Budget, address: &EmailAddress, secure: bool) -> String {
    email_cookie(budget, address.reveal(), CODE_LIFETIME.as_secs(), secure)
}

/// Builds the `Set-Cookie` header that removes the address.
pub fn clear_email(budget: &Budget, secure: bool) -> String {
    email_cookie(budget, "", 0, secure)
}

fn email_cookie(budget: &Budget, value: &str, max_age_s: u64, secure: bool) -> String {
    let secure = if secure { "; Secure" } else { "" };
    format!(
        "{EMAIL_COOKIE}={value}; Path=/budgets/{}; Max-Age={max_age_s}; HttpOnly; SameSite=Lax{secure}",
        budget.id
    )
}

/// Builds the `Set-Cookie` headers of a cookie. Where the service vouches for persons, the routes under `/v1` get it
/// too.
pub(crate) fn set(
    budget: &Budget,
    name: &str,
    value: &str,
    max_age: SignedDuration,
    secure: bool,
) -> Vec<String> {
    let secure = if secure { "; Secure" } else { "" };
    let seconds = max_age.as_secs();
    let paths: &[&str] = if budget.identity.is_named_by_client() {
        &["/budgets"]
    } else {
        &["/budgets", "/v1/budgets"]
    };
    let cookie = |path| {
        format!(
            "{name}={value}; Path={path}/{}; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}",
            budget.id
        )
    };
    paths.iter().map(cookie).collect()
}

/// Whether the request came over HTTPS, by `X-Forwarded-Proto` and `Origin`: the service itself never sees TLS.
///
/// A client that lies about it only weakens its own cookie.
pub fn is_https(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    text(X_FORWARDED_PROTO).is_some_and(|proto| proto.eq_ignore_ascii_case("https"))
        || text(ORIGIN).is_some_and(|origin| origin.starts_with("https://"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use schemas::{IdentityRule, default_budgets};

    use super::*;

    fn budget(identity: IdentityRule) -> Budget {
        Budget { identity, ..default_budgets().unwrap().remove(0) }
    }

    #[test]
    fn a_session_is_cleared_under_the_paths_under_which_it_was_set() {
        let budget = budget(IdentityRule::Code);
        let path = |cookie: &String| cookie.split("; ").nth(1).map(str::to_owned);
        let set = set_session(&budget, "t", SignedDuration::from_hours(1), true);
        let cleared = clear_session(&budget, true);
        assert_eq!(
            set.iter().map(path).collect::<Vec<_>>(),
            cleared.iter().map(path).collect::<Vec<_>>()
        );
        assert_eq!(
            cleared[0],
            "allocator_session=; Path=/budgets/taxes; Max-Age=0; HttpOnly; SameSite=Lax; Secure"
        );
        assert_eq!(session(["allocator_session="]), None, "as none");
    }

    #[test]
    fn an_address_is_kept_for_pages_alone_and_until_its_code_expires() {
        let budget = budget(IdentityRule::Email);
        let address = EmailAddress::parse("a'_b=c-d@example.org").unwrap();
        let cookie = set_email(&budget, &address, true);
        let (value, attributes) = cookie.split_once("; ").unwrap();
        assert_eq!(attributes, "Path=/budgets/taxes; Max-Age=600; HttpOnly; SameSite=Lax; Secure");
        assert_eq!(email([format!("x=1; {value}").as_str()]), Some(address));
        assert_eq!(email([clear_email(&budget, true).as_str()]), None);
    }
}
