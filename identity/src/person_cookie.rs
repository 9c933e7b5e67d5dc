//! The cookies that make a browser one person of a budget.
//!
//! A person's id is random and only in the cookies: no script, URL or body has it. One cookie has the id. The second
//! cookie has the id with a keyed hash that only the service can make. Clients cannot create ids; only the rate-limited
//! routes issue them.
//!
//! Earlier releases read and write the first cookie alone. So this release writes both, and still accepts an id without
//! its hash: a browser stays the same person across an update and a rollback. The next release will require the hash.

use jiff::{SignedDuration, Timestamp};
use ring::hmac;
use schemas::{Budget, PersonId, PersonSecret};
use subtle::ConstantTimeEq;

use crate::cookie::{set, values};

/// The cookie of the id. Its path is the budget's, so each budget has its own.
const ID_COOKIE: &str = "allocator_person";
/// The cookie of the id and its keyed hash.
const SIGNED_COOKIE: &str = "allocator_person_signed";
const PERSON_ID_PREFIX: &str = "a-";
/// 128 bits in base64url.
const DIGITS: usize = 22;
/// How long the cookies are kept after the budget closes.
const RETENTION_AFTER_CLOSING: SignedDuration = SignedDuration::from_hours(30 * 24);
/// The longest time for which the cookies are kept.
const MAX_AGE: SignedDuration = SignedDuration::from_hours(400 * 24);

const BASE64URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// The key of the hashes in persons' cookies.
#[derive(Clone)]
pub(crate) struct PersonCookieKey(hmac::Key);

/// The person of a browser's cookies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BrowserPerson {
    /// The person.
    pub person: PersonId,
    /// Whether a cookie has the keyed hash of the id.
    pub is_signed: bool,
}

impl PersonCookieKey {
    /// Derives the key from the deployment's secret.
    pub fn new(person_secret: &PersonSecret) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, &person_secret.derived_secret("person-cookies")))
    }

    /// Returns the person of a request's `Cookie` headers; `None` without a valid one. An id with its hash comes first.
    pub fn read<'a>(
        &self,
        budget: &Budget,
        headers: impl IntoIterator<Item = &'a str>,
    ) -> Option<BrowserPerson> {
        let headers: Vec<&str> = headers.into_iter().collect();
        let signed = values(headers.iter().copied(), SIGNED_COOKIE)
            .filter_map(|value| value.split_once('.'))
            .filter(|(id, hash)| self.hash(budget, id).as_bytes().ct_eq(hash.as_bytes()).into())
            .find_map(|(id, _)| person(id));
        if let Some(person) = signed {
            return Some(BrowserPerson { person, is_signed: true });
        }
        let person = values(headers, ID_COOKIE).find_map(person)?;
        Some(BrowserPerson { person, is_signed: false })
    }

    /// Builds the `Set-Cookie` headers of a person.
    pub fn set(&self, budget: &Budget, id: &str, now: Timestamp, secure: bool) -> Vec<String> {
        let max_age = max_age(budget, now);
        let signed = format!("{id}.{}", self.hash(budget, id));
        let mut cookies = set(budget, ID_COOKIE, id, max_age, secure);
        cookies.extend(set(budget, SIGNED_COOKIE, &signed, max_age, secure));
        cookies
    }

    fn hash(&self, budget: &Budget, id: &str) -> String {
        let mut context = hmac::Context::with_key(&self.0);
        // A budget id has no zero byte, so no two pairs have the same text.
        [budget.id.as_str(), "\0", id].iter().for_each(|part| context.update(part.as_bytes()));
        let tag = context.sign();
        let mut first = [0; 16];
        first.copy_from_slice(tag.as_ref().get(..16).unwrap_or(&[0; 16]));
        base64url(first)
    }
}

/// Makes the id of a new person.
pub(crate) fn new_person(random: [u8; 16]) -> String {
    format!("{PERSON_ID_PREFIX}{}", base64url(random))
}

fn person(id: &str) -> Option<PersonId> {
    let digits = id.strip_prefix(PERSON_ID_PREFIX)?;
    let is_id = digits.len() == DIGITS && digits.bytes().all(|byte| BASE64URL.contains(&byte));
    if is_id { PersonId::parse(id).ok() } else { None }
}

fn max_age(budget: &Budget, now: Timestamp) -> SignedDuration {
    let closes_in = budget.closes_at.map(|closes_at| closes_at.duration_since(now));
    let kept = closes_in.map_or(MAX_AGE, |left| left.saturating_add(RETENTION_AFTER_CLOSING));
    kept.clamp(SignedDuration::ZERO, MAX_AGE)
}

fn base64url(bytes: [u8; 16]) -> String {
    let bits = u128::from_be_bytes(bytes);
    // 21 digits of six bits, and one of the last two bits.
    let digits = (0..DIGITS as u32).map(|index| match 122_u32.checked_sub(index * 6) {
        Some(shift) => (bits >> shift) & 63,
        None => (bits & 3) << 4,
    });
    digits.filter_map(|digit| BASE64URL.get(digit as usize).copied().map(char::from)).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;
    use schemas::{BudgetId, IdentityRule, default_budgets};

    use super::*;

    fn budget(closes_at: Option<&str>) -> Budget {
        let budget = default_budgets().unwrap().remove(0);
        Budget { closes_at: closes_at.map(|at| at.parse().unwrap()), ..budget }
    }

    fn cookie_key(secret: u8) -> PersonCookieKey {
        PersonCookieKey::new(&PersonSecret::new(&[secret; 32]).unwrap())
    }

    fn set_cookies(budget: &Budget, id: &str, secure: bool) -> Vec<String> {
        let now = "2027-01-01T00:00:00Z".parse().unwrap();
        cookie_key(1).set(budget, id, now, secure)
    }

    /// The `Cookie` header with which a browser answers.
    fn sent_back(cookies: &[String]) -> String {
        let pairs: Vec<&str> =
            cookies.iter().filter_map(|cookie| cookie.split(';').next()).collect();
        pairs.join("; ")
    }

    fn read(key: &PersonCookieKey, budget: &Budget, header: &str) -> Option<(String, bool)> {
        let browser = key.read(budget, [header])?;
        Some((browser.person.reveal().to_owned(), browser.is_signed))
    }

    #[test]
    fn a_person_whom_the_service_knows_is_the_same_on_pages_and_under_v1() {
        let budget = Budget { identity: IdentityRule::Anonymous, ..budget(None) };
        let cookies = set_cookies(&budget, &new_person([255; 16]), false);
        let paths: Vec<&str> =
            cookies.iter().filter_map(|cookie| cookie.split("; ").nth(1)).collect();
        let both = ["Path=/budgets/taxes", "Path=/v1/budgets/taxes"];
        assert_eq!(paths, [both, both].concat());
        let values: Vec<_> = cookies.iter().map(|cookie| cookie.split(';').next()).collect();
        assert_eq!((values[0], values[2]), (values[1], values[3]));
    }

    #[test]
    fn a_cookie_belongs_to_one_budget_and_no_script_can_read_it() {
        let cookies = |closes_at| set_cookies(&budget(closes_at), &new_person([255; 16]), true);
        let [id, signed] = &cookies(None)[..] else { panic!("no route under /v1 takes them") };
        assert_eq!(
            id,
            "allocator_person=a-_____________________w; Path=/budgets/taxes; Max-Age=34560000; HttpOnly; SameSite=Lax; Secure"
        );
        assert!(signed.starts_with("allocator_person_signed=a-_____________________w."));
        assert_eq!(signed.split_once("; ").unwrap().1, id.split_once("; ").unwrap().1);
        for (closes_at, seconds) in [
            ("2027-01-02T00:00:00Z", 2_678_400),
            ("2029-01-02T00:00:00Z", 34_560_000),
            ("2020-01-02T00:00:00Z", 0),
        ] {
            let expected = format!("; Max-Age={seconds}; ");
            assert!(cookies(Some(closes_at)).iter().all(|cookie| cookie.contains(&expected)));
        }
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
            "allocator_person_signed=a-AAAAAAAAAAAAAAAAAAAAAA",
            "allocator_person_signed=a-AAAAAAAAAAAAAAAAAAAAAA.AAAAAAAAAAAAAAAAAAAAAA",
        ] {
            assert_eq!(read(&cookie_key(1), &budget(None), header), None, "{header}");
        }
    }

    #[test]
    fn an_id_without_its_hash_is_the_same_person_before_and_after_the_second_cookie() {
        let (key, budget) = (cookie_key(1), budget(None));
        let id = "a-AAAAAAAAAAAAAAAAAAAAAA".to_owned();
        let before = read(&key, &budget, &format!("x=1; y=2; allocator_person={id}; z"));
        assert_eq!(before, Some((id.clone(), false)));
        let after = sent_back(&set_cookies(&budget, &id, false));
        assert_eq!(read(&key, &budget, &after), Some((id, true)));
    }

    #[test]
    fn an_id_with_its_hash_comes_before_one_without_and_is_for_its_budget_and_deployment() {
        let (key, budget) = (cookie_key(1), budget(None));
        let signed = sent_back(&set_cookies(&budget, &new_person([7; 16]), false)[1..]);
        let invented = "allocator_person=a-AAAAAAAAAAAAAAAAAAAAAA";
        let both = format!("{invented}; {signed}");
        assert_eq!(read(&key, &budget, &both), Some((new_person([7; 16]), true)));
        let other = Budget { id: BudgetId::parse("parks").unwrap(), ..budget.clone() };
        assert_eq!(read(&key, &other, &signed), None);
        assert_eq!(read(&cookie_key(2), &budget, &signed), None);
        let changed = signed.replacen("a-B", "a-C", 1);
        assert_ne!(changed, signed);
        assert_eq!(read(&key, &budget, &changed), None);
    }

    proptest! {
        #[test]
        fn every_id_is_read_again_and_differs_with_the_bits(first: [u8; 16], second: [u8; 16]) {
            let cookies = sent_back(&set_cookies(&budget(None), &new_person(first), false));
            let person = read(&cookie_key(1), &budget(None), &cookies);
            prop_assert_eq!(person, Some((new_person(first), true)));
            prop_assert_eq!(new_person(first) == new_person(second), first == second);
        }
    }
}
