//! One-time codes of six digits, and the keyed hashes under which they are stored.

use std::fmt;

use ring::hmac;
use runtime::client::ClientNetwork;
use schemas::{BudgetId, CodeHolder, KeyedHash, PersonSecret};

use super::EmailAddress;

const DIGITS: usize = 6;
const CODES: u128 = 1_000_000;
/// Maximum length of a text that is read as a code: with a separator after each digit.
const MAX_TEXT_BYTES: usize = 2 * DIGITS;
/// Holders of codes that no mail is sent for: few, so that they do not fill a store.
const DECOYS: u128 = 1_024;

/// A one-time code. `Debug` hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct OneTimeCode(String);

impl OneTimeCode {
    /// Makes a code of random bits. Of 128 bits, no code is likelier than another by more than a trillionth.
    pub fn new(random: [u8; 16]) -> Self {
        Self(format!("{:0DIGITS$}", u128::from_be_bytes(random) % CODES))
    }

    /// Parses a code as a person types it: six digits, with or without blanks and hyphens.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > MAX_TEXT_BYTES {
            return None;
        }
        let digits: String =
            text.chars().filter(|c| !c.is_ascii_whitespace() && *c != '-').collect();
        let is_code = digits.len() == DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit());
        is_code.then_some(Self(digits))
    }

    /// Returns the digits, only for the mail.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for OneTimeCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OneTimeCode(hidden)")
    }
}

/// The key of the hashes of addresses and one-time codes.
#[derive(Clone)]
pub struct EmailCodeKey(hmac::Key);

impl fmt::Debug for EmailCodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EmailCodeKey(hidden)")
    }
}

impl EmailCodeKey {
    /// Derives the key from the deployment's secret.
    pub fn new(person_secret: &PersonSecret) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, &person_secret.derived_secret("email-codes")))
    }

    /// Returns the hashes that an address has in a budget.
    pub fn holder(&self, budget: &BudgetId, address: &EmailAddress) -> CodeHolder {
        CodeHolder {
            slot: self.hash(&["slot", budget.as_str(), address.reveal()]),
            mailbox: self.hash(&["mailbox", address.reveal()]),
        }
    }

    /// Returns hashes of no address, out of a small set, for a code that nobody gets.
    pub fn decoy(&self, random: [u8; 16]) -> CodeHolder {
        let number = (u128::from_be_bytes(random) % DECOYS).to_string();
        CodeHolder {
            slot: self.hash(&["decoy-slot", &number]),
            mailbox: self.hash(&["decoy-mailbox", &number]),
        }
    }

    /// Returns the hash of a code, which is bound to its budget and address.
    pub fn code(&self, budget: &BudgetId, address: &EmailAddress, code: &OneTimeCode) -> KeyedHash {
        self.hash(&["code", budget.as_str(), address.reveal(), &code.0])
    }

    /// Returns the hash of the network of a client that tries a code; `None` if it is unknown.
    pub fn client(&self, network: ClientNetwork) -> Option<KeyedHash> {
        network.address().map(|address| self.hash(&["client", &address.to_string()]))
    }

    /// Hashes texts that have no zero bytes.
    fn hash(&self, texts: &[&str]) -> KeyedHash {
        let mut hash = hmac::Context::with_key(&self.0);
        for text in texts {
            hash.update(text.as_bytes());
            hash.update(b"\0");
        }
        let mut bytes = [0; 32];
        bytes.iter_mut().zip(hash.sign().as_ref()).for_each(|(to, from)| *to = *from);
        KeyedHash::from_bytes(bytes)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_code_is_bound_to_its_budget_and_address_and_a_mailbox_to_neither_budget() {
        let person_secret = PersonSecret::new(b"a secret of at least thirty-two bytes").unwrap();
        let key = EmailCodeKey::new(&person_secret);
        let (parks, taxes) = (BudgetId::parse("parks").unwrap(), BudgetId::parse("taxes").unwrap());
        let address = |text| EmailAddress::parse(text).unwrap();
        let (a, b) = (address("a@example.org"), address("b@example.org"));
        let code = OneTimeCode::parse("012345").unwrap();
        let network = |text: &str| ClientNetwork::from(text.parse::<std::net::IpAddr>().unwrap());
        assert_eq!(key.client(ClientNetwork::UNKNOWN), None);
        let hashes = [
            key.code(&parks, &a, &code),
            key.code(&taxes, &a, &code),
            key.code(&parks, &b, &code),
            key.code(&parks, &a, &OneTimeCode::parse("012346").unwrap()),
            key.holder(&parks, &a).slot,
            key.holder(&taxes, &a).slot,
            key.holder(&parks, &b).slot,
            key.holder(&parks, &a).mailbox,
            key.holder(&parks, &b).mailbox,
            key.decoy([0; 16]).slot,
            key.decoy([0; 16]).mailbox,
            key.client(network("192.0.2.1")).unwrap(),
            key.client(network("192.0.2.2")).unwrap(),
        ];
        let distinct: std::collections::HashSet<_> = hashes.iter().collect();
        assert_eq!(distinct.len(), hashes.len());
        assert_eq!(key.holder(&parks, &a).mailbox, key.holder(&taxes, &a).mailbox);
        let other = PersonSecret::new(b"another secret of thirty-two bytes").unwrap();
        assert_ne!(EmailCodeKey::new(&other).code(&parks, &a, &code), hashes[0]);
        assert!(!format!("{code:?} {key:?} {:?}", hashes[0]).contains("12345"));
    }

    #[test]
    fn decoys_are_few() {
        let person_secret = PersonSecret::new(b"a secret of at least thirty-two bytes").unwrap();
        let key = EmailCodeKey::new(&person_secret);
        let decoys = (0..10 * DECOYS).map(|random| key.decoy(random.to_be_bytes()));
        let distinct: std::collections::HashSet<_> = decoys.collect();
        assert_eq!(distinct.len() as u128, DECOYS);
    }

    #[test]
    fn only_six_digits_are_a_code() {
        for text in ["012345", "012 345", " 012-345 "] {
            assert_eq!(OneTimeCode::parse(text).unwrap().reveal(), "012345", "{text}");
        }
        for text in ["", "12345", "1234567", "12345a", "１２３４５６", "1 2 3 4 5 6 7", "-------"]
        {
            assert!(OneTimeCode::parse(text).is_none(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_code_is_read_again(random: [u8; 16]) {
            let code = OneTimeCode::new(random);
            prop_assert_eq!(OneTimeCode::parse(code.reveal()), Some(code));
        }

        #[test]
        fn no_text_causes_a_panic(text in ".{0,20}") {
            OneTimeCode::parse(&text);
        }
    }
}
