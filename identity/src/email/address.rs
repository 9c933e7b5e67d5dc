//! E-mail addresses: a conservative syntax in ASCII, and one form for all spellings of a mailbox.

use std::fmt;

/// Maximum length of an address, in bytes (RFC 5321, 4.5.3.1.3, without the angle brackets).
const MAX_ADDRESS_BYTES: usize = 254;
/// Maximum length of the part before the `@`, in bytes.
const MAX_LOCAL_BYTES: usize = 64;
/// Maximum length of one label of a domain, in bytes.
const MAX_LABEL_BYTES: usize = 63;
/// Characters besides letters and digits in the part before the `@`.
///
/// Fewer than `atext` of RFC 5322: mail servers may route `a%b@` and `b!a@` on to another server, and read `|`, `/` and
/// others as a command or a file. Such a mail leaves the domain that is allowed, or one mailbox has many spellings.
const ATOM_SYMBOLS: &[u8] = b"'+-=_";

/// Why a text is not an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EmailAddressFault {
    /// The text is too long.
    #[error("must be at most {MAX_ADDRESS_BYTES} bytes, {MAX_LOCAL_BYTES} before the `@`")]
    TooLong,
    /// The text is not of the form of an address.
    #[error("must be an e-mail address such as name@example.org, in ASCII")]
    Syntax,
}

/// An e-mail address in the form that makes its mailbox one person: in lower case, without `+tag`.
///
/// RFC 5321 lets a mail server distinguish `A@` from `a@` and `a+b@` from `a@`. Hardly any does, and who can write one
/// mailbox in many ways would be many persons. A code is sent to this form alone, never to what was typed: whoever
/// reads the mailbox of this form is the person, so no other spelling can take that person over.
///
/// Personal data: has no `Display`, and `Debug` hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct EmailAddress {
    text: String,
    /// Where the `@` is in `text`.
    at: usize,
}

impl EmailAddress {
    /// Parses an address. Quoted local parts, source routes, IP literals, comments and names without a dot are none.
    ///
    /// # Errors
    /// Why the text is not an address.
    pub fn parse(text: &str) -> Result<Self, EmailAddressFault> {
        let text = text.trim_matches(|c: char| c.is_ascii_whitespace());
        if text.len() > MAX_ADDRESS_BYTES {
            return Err(EmailAddressFault::TooLong);
        }
        let (local, domain) = text.rsplit_once('@').ok_or(EmailAddressFault::Syntax)?;
        if local.len() > MAX_LOCAL_BYTES {
            return Err(EmailAddressFault::TooLong);
        }
        // Programs read a recipient that begins with `-` as an option.
        if !is_dot_atom(local) || local.starts_with('-') || !is_domain(domain) {
            return Err(EmailAddressFault::Syntax);
        }
        let mailbox = local.split('+').next().unwrap_or_default();
        // Without its tag, `a.+b` would end with a dot.
        if !is_dot_atom(mailbox) {
            return Err(EmailAddressFault::Syntax);
        }
        let mut text = format!("{mailbox}@{domain}");
        text.make_ascii_lowercase();
        Ok(Self { at: mailbox.len(), text })
    }

    /// Returns the address in clear text, only for its mail, its cookie and the person's id.
    pub fn reveal(&self) -> &str {
        &self.text
    }

    /// Returns the part before the `@`.
    pub fn local_part(&self) -> &str {
        self.text.get(..self.at).unwrap_or_default()
    }

    /// Returns the domain.
    pub fn domain(&self) -> &str {
        self.text.get(self.at + 1..).unwrap_or_default()
    }
}

impl fmt::Debug for EmailAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EmailAddress(hidden)")
    }
}

fn is_dot_atom(text: &str) -> bool {
    let is_symbol = |byte: u8| byte.is_ascii_alphanumeric() || ATOM_SYMBOLS.contains(&byte);
    text.split('.').all(|atom| !atom.is_empty() && atom.bytes().all(is_symbol))
}

/// Whether a text is a host name of at least two labels, the last one not a number.
pub(super) fn is_domain(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=MAX_LABEL_BYTES).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let top = text.rsplit('.').next().unwrap_or_default();
    text.contains('.')
        && text.split('.').all(is_label)
        && !top.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn all_spellings_of_a_mailbox_are_one_address() {
        for spelling in
            ["a.b@example.org", "A.B@Example.ORG", " a.b+vote@example.org ", "a.b+x+y@EXAMPLE.org"]
        {
            let address = EmailAddress::parse(spelling).unwrap();
            assert_eq!(address.reveal(), "a.b@example.org", "{spelling}");
            assert_eq!((address.local_part(), address.domain()), ("a.b", "example.org"));
        }
        let other = EmailAddress::parse("ab@example.org").unwrap();
        assert_ne!(other.reveal(), "a.b@example.org", "dots are the mail server's affair");
    }

    #[test]
    fn whatever_a_mail_server_could_read_in_two_ways_is_no_address() {
        let long = format!("{}@example.org", "a".repeat(65));
        let longer = format!("a@{}.org", "b.".repeat(130));
        for text in [
            "",
            "@",
            "a",
            "a@",
            "@example.org",
            "+tag@example.org",
            "a.+tag@example.org",
            ".a@example.org",
            "a.@example.org",
            "a..b@example.org",
            "a@b@example.org",
            "a b@example.org",
            "\"a\"@example.org",
            "a@example.org, b@example.org",
            "Name <a@example.org>",
            "a@[127.0.0.1]",
            "a@127.0.0.1",
            "a@localhost",
            "a@example.org.",
            "a@-example.org",
            "a@example-.org",
            "a@exam_ple.org",
            "ä@example.org",
            "a@exämple.org",
            "a@example.org\r\nBcc: b@example.org",
            "a\0@example.org",
            &long,
            &longer,
        ] {
            assert!(EmailAddress::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn an_address_that_a_mail_server_could_rewrite_is_no_address() {
        for local in ["v1%evil.example", "evil.example!v1", "-v1", "a+b%evil.example"] {
            assert!(EmailAddress::parse(&format!("{local}@town.example")).is_err(), "{local}");
        }
        for symbol in "!#$%&*/:?^`{|}~\\,;()[]<>\"@\x7f".chars() {
            let text = format!("a{symbol}b@town.example");
            assert!(EmailAddress::parse(&text).is_err(), "{text}");
        }
        for (text, mailbox) in [
            ("o'brien@town.example", "o'brien@town.example"),
            ("a_b-c=d@town.example", "a_b-c=d@town.example"),
            ("a-+b=c@town.example", "a-@town.example"),
        ] {
            assert_eq!(EmailAddress::parse(text).unwrap().reveal(), mailbox);
        }
    }

    #[test]
    fn an_address_is_not_printed() {
        let address = EmailAddress::parse("zebra@example.org").unwrap();
        assert_eq!(format!("{address:?}"), "EmailAddress(hidden)");
    }

    proptest! {
        #[test]
        fn parsing_is_idempotent_and_never_panics(text in ".{0,80}") {
            if let Ok(address) = EmailAddress::parse(&text) {
                let again = EmailAddress::parse(address.reveal()).unwrap();
                prop_assert_eq!(again, address);
            }
        }

        #[test]
        fn an_address_is_one_visible_word_in_lower_case(
            text in "[ -~]{1,20}@[A-Za-z0-9.-]{1,20}\\.[a-zA-Z]{2,5}",
        ) {
            if let Ok(address) = EmailAddress::parse(&text) {
                let text = address.reveal();
                prop_assert!(text.bytes().all(|byte| byte.is_ascii_graphic() && !byte.is_ascii_uppercase()));
                let is_other = |c: char| !c.is_ascii_alphanumeric() && !".'=_-".contains(c);
                prop_assert!(!address.local_part().contains(is_other));
                prop_assert_eq!(format!("{}@{}", address.local_part(), address.domain()), text);
            }
        }
    }
}
