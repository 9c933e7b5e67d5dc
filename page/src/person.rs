//! The cookie that makes a browser one person of a budget.
//!
//! The id is random and only in the cookie: no script, URL or body has it. Each budget has its own, so that a person's
//! budgets cannot be joined. The random bits come from the caller.

use jiff::{SignedDuration, Timestamp};
use schemas::{Budget, PersonId};

/// The cookie's name. Its path is the budget's, so each budget has its own.
const NAME: &str = "allocator_person";
const PREFIX: &str = "a-";
/// 128 bits in base64url.
const ID_CHARS: usize = 22;
/// How long the cookie is kept: until some time after the budget closes, and at most so long.
const AFTER_CLOSING: SignedDuration = SignedDuration::from_hours(30 * 24);
const AT_MOST: SignedDuration = SignedDuration::from_hours(400 * 24);

const BASE64URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Returns the person of the request's `Cookie` headers; `None` without a valid one.
pub fn from_cookies<'a>(headers: impl IntoIterator<Item = &'a str>) -> Option<PersonId> {
    headers
        .into_iter()
        .flat_map(|header| header.split(';'))
        .filter_map(|cookie| cookie.trim().split_once('='))
        .filter(|(name, value)| *name == NAME && is_id(value))
        .find_map(|(_, value)| PersonId::parse(value).ok())
}

fn is_id(value: &str) -> bool {
    value
        .strip_prefix(PREFIX)
        .is_some_and(|id| id.len() == ID_CHARS && id.bytes().all(|byte| BASE64URL.contains(&byte)))
}

/// Builds the `Set-Cookie` header of a new person.
pub fn set_cookie(budget: &Budget, random: [u8; 16], now: Timestamp, secure: bool) -> String {
    let secure = if secure { "; Secure" } else { "" };
    let seconds = max_age(budget, now).as_secs();
    format!(
        "{NAME}={}; Path=/budgets/{}; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}",
        id(random),
        budget.id
    )
}

/// Whether the request came over HTTPS, by `X-Forwarded-Proto` and `Origin`: the service itself never sees TLS.
///
/// A client that lies about it only weakens its own cookie.
pub fn is_https(forwarded_proto: Option<&str>, origin: Option<&str>) -> bool {
    forwarded_proto.is_some_and(|proto| proto.eq_ignore_ascii_case("https"))
        || origin.is_some_and(|origin| origin.starts_with("https://"))
}

fn max_age(budget: &Budget, now: Timestamp) -> SignedDuration {
    let closes_in = budget.closes_at.map(|closes_at| closes_at.duration_since(now));
    let kept = closes_in.map_or(AT_MOST, |left| left.saturating_add(AFTER_CLOSING));
    kept.clamp(SignedDuration::ZERO, AT_MOST)
}

fn id(random: [u8; 16]) -> String {
    let bits = u128::from_be_bytes(random);
    // 21 digits of six bits, and one of the last two bits.
    let digits = (0..ID_CHARS as u32).map(|index| match 122_u32.checked_sub(index * 6) {
        Some(shift) => (bits >> shift) & 63,
        None => (bits & 3) << 4,
    });
    let text = digits.filter_map(|digit| BASE64URL.get(digit as usize).copied().map(char::from));
    PREFIX.chars().chain(text).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;
    use schemas::default_budgets;

    use super::*;

    fn budget(closes_at: Option<&str>) -> Budget {
        let budget = default_budgets().unwrap().remove(0);
        Budget { closes_at: closes_at.map(|at| at.parse().unwrap()), ..budget }
    }

    fn cookie(closes_at: Option<&str>, secure: bool) -> String {
        set_cookie(&budget(closes_at), [255; 16], "2027-01-01T00:00:00Z".parse().unwrap(), secure)
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
    fn only_ids_of_this_service_are_taken_from_cookies() {
        for header in [
            "",
            "allocator_person",
            "allocator_person=a-short",
            "allocator_person=p-AAAAAAAAAAAAAAAAAAAAAA",
            "allocator_person=a-AAAAAAAAAAAAAAAAAAAAA!",
            "xallocator_person=a-AAAAAAAAAAAAAAAAAAAAAA",
        ] {
            assert!(from_cookies([header]).is_none(), "{header}");
        }
        let id = "a-AAAAAAAAAAAAAAAAAAAAAA";
        let person = from_cookies(["x=1", &format!("y=2; allocator_person={id}; z")]);
        assert_eq!(person.unwrap().reveal(), id);
    }

    proptest! {
        #[test]
        fn every_id_is_read_again_and_differs_with_the_bits(first: [u8; 16], second: [u8; 16]) {
            let header = format!("allocator_person={}", id(first));
            let person = from_cookies([header.as_str()]).map(|person| person.reveal().to_owned());
            prop_assert_eq!(person, Some(id(first)));
            prop_assert_eq!(id(first) == id(second), first == second);
        }
    }
}
