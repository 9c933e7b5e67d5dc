//! The cookies of a browser: of the person that it is in a budget, and of a session.
//!
//! A person's id is random and only in the cookie: no script, URL or body has it. Each budget has its own cookies, so
//! that a person's budgets cannot be joined. The random bits come from the caller.

use http::header::ORIGIN;
use http::{HeaderMap, HeaderName};
use jiff::{SignedDuration, Timestamp};
use schemas::{Budget, CODE_LIFETIME, PersonId};

use crate::email::EmailAddress;

/// The cookie of a person. Its path is the budget's, so each budget has its own.
const PERSON_COOKIE: &str = "allocator_person";
/// The cookie of a session.
const SESSION_COOKIE: &str = "allocator_session";
/// The cookie of an address that was sent a one-time code, so that the form for the code need not have it.
const EMAIL_COOKIE: &str = "allocator_email";
const PERSON_ID_PREFIX: &str = "a-";
/// 128 bits in base64url.
const ID_CHARS: usize = 22;
/// How long a person's cookie is kept after the budget closes.
const RETENTION_AFTER_CLOSING: SignedDuration = SignedDuration::from_hours(30 * 24);
/// The longest time for which a person's cookie is kept.
const MAX_PERSON_COOKIE_AGE: SignedDuration = SignedDuration::from_hours(400 * 24);

const BASE64URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Returns the person of the request's `Cookie` headers; `None` without a valid one.
pub fn person<'a>(headers: impl IntoIterator<Item = &'a str>) -> Option<PersonId> {
    values(headers, PERSON_COOKIE)
        .filter(|value| is_id(value))
        .find_map(|id| PersonId::parse(id).ok())
}

/// Returns the token of a session in the request's `Cookie` headers. Nothing of it is verified.
pub(crate) fn session<'a>(headers: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    values(headers, SESSION_COOKIE).find(|value| !value.is_empty())
}

/// Returns the address of the request's `Cookie` headers for which a one-time code was asked; `None` without one.
pub fn email<'a>(headers: impl IntoIterator<Item = &'a str>) -> Option<EmailAddress> {
    values(headers, EMAIL_COOKIE).find_map(|value| EmailAddress::parse(value).ok())
}

fn values<'a>(
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

fn is_id(value: &str) -> bool {
    value
        .strip_prefix(PERSON_ID_PREFIX)
        .is_some_and(|id| id.len() == ID_CHARS && id.bytes().all(|byte| BASE64URL.contains(&byte)))
}

/// Builds the `Set-Cookie` headers of a person. Where the service vouches for persons, the routes under `/v1` get the
/// cookie too.
pub fn set_person(budget: &Budget, id: &str, now: Timestamp, secure: bool) -> Vec<String> {
    set(budget, PERSON_COOKIE, id, max_age(budget, now), secure)
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

fn set(
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

fn max_age(budget: &Budget, now: Timestamp) -> SignedDuration {
    let closes_in = budget.closes_at.map(|closes_at| closes_at.duration_since(now));
    let kept = closes_in
        .map_or(MAX_PERSON_COOKIE_AGE, |left| left.saturating_add(RETENTION_AFTER_CLOSING));
    kept.clamp(SignedDuration::ZERO, MAX_PERSON_COOKIE_AGE)
}

/// Makes the id of a new person.
pub fn new_person(random: [u8; 16]) -> String {
    let bits = u128::from_be_bytes(random);
    // 21 digits of six bits, and one of the last two bits.
    let digits = (0..ID_CHARS as u32).map(|index| match 122_u32.checked_sub(index * 6) {
        Some(shift) => (bits >> shift) & 63,
        None => (bits & 3) << 4,
    });
    let text = digits.filter_map(|digit| BASE64URL.get(digit as usize).copied().map(char::from));
    PERSON_ID_PREFIX.chars().chain(text).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;
    use schemas::{IdentityRule, default_budgets};

    use super::*;

    fn budget(closes_at: Option<&str>) -> Budget {
        let budget = default_budgets().unwrap().remove(0);
        Budget { closes_at: closes_at.map(|at| at.parse().unwrap()), ..budget }
    }

    fn cookie(closes_at: Option<&str>, secure: bool) -> String {
        let now = "2027-01-01T00:00:00Z".parse().unwrap();
        let cookies = set_person(&budget(closes_at), &new_person([255; 16]), now, secure);
        assert_eq!(
            cookies.len(),
            1,
            "no route under /v1 takes a cookie where the client names the person"
        );
        cookies.concat()
    }

    #[test]
    fn a_person_whom_the_service_knows_is_the_same_on_pages_and_under_v1() {
        let budget = Budget { identity: IdentityRule::Anonymous, ..budget(None) };
        let cookies = set_person(&budget, &new_person([255; 16]), Timestamp::UNIX_EPOCH, false);
        let paths: Vec<&str> =
            cookies.iter().filter_map(|cookie| cookie.split("; ").nth(1)).collect();
        assert_eq!(paths, ["Path=/budgets/taxes", "Path=/v1/budgets/taxes"]);
        let values: Vec<_> = cookies.iter().map(|cookie| cookie.split(';').next()).collect();
        assert_eq!(values[0], values[1]);
    }

    #[test]
    fn a_cookie_belongs_to_one_budget_and_no_script_can_read_it() {
        assert_eq!(
            cookie(None, true),
            "allocator_person=a-_____________________w; Path=/budgets/taxes; Max-Age=34560000; HttpOnly; SameSite=Lax; Secure"
        );
        assert!(cookie(Some("2027-01-02T00:00:00Z"), false).contains("; Max-Age=2678400; "));
        assert!(cookie(Some("2029-01-02T00:00:00Z"), false).contains("; Max-Age=34560000; "));
        assert!(cookie(Some("2020-01-02T00:00:00Z"), false).contains("; Max-Age=0; "));
    }

    #[test]
    fn a_session_is_cleared_under_the_paths_under_which_it_was_set() {
        let budget = Budget { identity: IdentityRule::Code, ..budget(None) };
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
        let budget = Budget { identity: IdentityRule::Email, ..budget(None) };
        let address = EmailAddress::parse("a'_b=c-d@example.org").unwrap();
        let cookie = set_email(&budget, &address, true);
        let (value, attributes) = cookie.split_once("; ").unwrap();
        assert_eq!(attributes, "Path=/budgets/taxes; Max-Age=600; HttpOnly; SameSite=Lax; Secure");
        assert_eq!(email([format!("x=1; {value}").as_str()]), Some(address));
        assert_eq!(email([clear_email(&budget, true).as_str()]), None);
    }

    #[test]
    fn only_ids_of_this_service_are_taken_from_cookies() {
        for header in [
            "",
            "allocator_person",
            "allocator_person=a-short",
            "allocator_person=p-AAAAAAAAAAAAAAAAAAAAAA",
            "allocator_person=a-AAAAAAAAAAAAAAAAAAAAA!",
            "xallocator_person=a-AAAAAAAAAAAAAAAAAAAAAA",
        ] {
            assert!(super::person([header]).is_none(), "{header}");
        }
        let id = "a-AAAAAAAAAAAAAAAAAAAAAA";
        let person = super::person(["x=1", &format!("y=2; allocator_person={id}; z")]);
        assert_eq!(person.unwrap().reveal(), id);
    }

    proptest! {
        #[test]
        fn every_id_is_read_again_and_differs_with_the_bits(first: [u8; 16], second: [u8; 16]) {
            let header = format!("allocator_person={}", new_person(first));
            let person = super::person([header.as_str()]).map(|person| person.reveal().to_owned());
            prop_assert_eq!(person, Some(new_person(first)));
            prop_assert_eq!(new_person(first) == new_person(second), first == second);
        }
    }
}
