//! Which mail domains may take part.

use std::str::FromStr;

use super::address::{EmailAddress, is_domain};

/// A text is not a pattern of domains.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected domains such as `example.org` or `*.example.org`, separated by commas")]
pub struct DomainFault;

/// The allowed and the denied domains.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EmailDomains {
    allowed: Patterns,
    denied: Patterns,
}

/// Domains, `example.org`, or the domains below one, `*.example.org`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Patterns(Vec<String>);

impl FromStr for Patterns {
    type Err = DomainFault;

    fn from_str(text: &str) -> Result<Self, DomainFault> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let patterns = text.split(',').map(|pattern| pattern.trim().to_ascii_lowercase());
        let patterns: Vec<String> = patterns.collect();
        let is_pattern = |text: &String| is_domain(text.strip_prefix("*.").unwrap_or(text));
        if patterns.iter().all(is_pattern) { Ok(Self(patterns)) } else { Err(DomainFault) }
    }
}

impl Patterns {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a pattern matches. Compares all of them, so that time does not depend on which one does.
    fn matches(&self, domain: &str) -> bool {
        self.0.iter().fold(false, |found, pattern| found | matches(pattern, domain))
    }
}

fn matches(pattern: &str, domain: &str) -> bool {
    match pattern.strip_prefix("*.") {
        None => pattern == domain,
        Some(parent) => {
            domain.strip_suffix(parent).is_some_and(|below| below.len() > 1 && below.ends_with('.'))
        }
    }
}

impl EmailDomains {
    /// Creates the rule. Without allowed domains all are allowed that are not denied.
    pub fn new(allowed: Patterns, denied: Patterns) -> Self {
        Self { allowed, denied }
    }

    /// Whether an address may take part.
    pub fn allow(&self, address: &EmailAddress) -> bool {
        let is_allowed = self.allowed.is_empty() | self.allowed.matches(address.domain());
        is_allowed & !self.denied.matches(address.domain())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn allow(allowed: &str, denied: &str, domain: &str) -> bool {
        let domains = EmailDomains::new(allowed.parse().unwrap(), denied.parse().unwrap());
        domains.allow(&EmailAddress::parse(&format!("a@{domain}")).unwrap())
    }

    #[test]
    fn without_lists_every_domain_is_allowed() {
        assert!(allow("", "", "example.org"));
    }

    #[test]
    fn an_allowed_list_excludes_all_others_and_a_denied_domain_is_denied_in_any_case() {
        let allowed = "example.org, *.Uni.EXAMPLE";
        for (domain, expected) in [
            ("example.org", true),
            ("EXAMPLE.org", true),
            ("a.example.org", false),
            ("a.uni.example", true),
            ("a.b.uni.example", true),
            ("uni.example", false),
            ("notuni.example", false),
            ("other.org", false),
        ] {
            assert_eq!(allow(allowed, "", domain), expected, "{domain}");
        }
        assert!(!allow("example.org", "example.org", "example.org"));
        assert!(!allow("*.example.org", "*.b.example.org", "a.b.example.org"));
        assert!(allow("", "*.example.org", "example.org"));
    }

    #[test]
    fn other_texts_are_no_patterns() {
        for text in ["*", "example", "*.*.org", "a@example.org", "example.org,,b.org", "*.org."] {
            assert!(text.parse::<Patterns>().is_err(), "{text}");
        }
    }
}
