//! The service as other sites see it: its own address, and who may frame its embeds.

use std::sync::Arc;

use http::HeaderValue;
use runtime::http::origin;

/// The address under which readers reach the service. Never taken from a request, whose `Host` anyone can forge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicUrl(Arc<str>);

impl PublicUrl {
    /// Parses an optional origin; empty means none.
    ///
    /// # Errors
    /// If it is not an origin as browsers write it.
    pub fn parse_optional(text: &str) -> Result<Option<Self>, String> {
        if text.is_empty() {
            return Ok(None);
        }
        match origin(text) {
            Some(_) => Ok(Some(Self(text.into()))),
            None => {
                Err("expected an origin without a path, for example https://example.org".to_owned())
            }
        }
    }

    /// Returns the origin, without a slash at its end.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Which pages may show embeds in a frame: the sources of the policy's `frame-ancestors`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmbedAncestors(Arc<str>);

impl EmbedAncestors {
    /// Parses `*`, `none`, or origins separated by commas.
    ///
    /// # Errors
    /// If it is none of them.
    pub fn parse(text: &str) -> Result<Self, String> {
        let expected =
            "expected `*`, `none`, or origins such as https://example.org, separated by commas";
        match text.trim() {
            "*" => return Ok(Self("*".into())),
            "none" => return Ok(Self("'none'".into())),
            _ => {}
        }
        let items: Vec<&str> = text.split(',').map(str::trim).collect();
        if items.iter().all(|item| origin(item).is_some()) {
            Ok(Self(items.join(" ").into()))
        } else {
            Err(expected.to_owned())
        }
    }
}

/// What the pages need to know of the service's place in the web.
#[derive(Debug, Clone)]
pub struct Site {
    /// The address under which readers reach the service, if it is configured.
    pub public_url: Option<PublicUrl>,
    /// The `Content-Security-Policy` of embeds.
    pub embed_policy: HeaderValue,
}

impl Site {
    /// Prepares the configured values.
    pub fn new(public_url: Option<PublicUrl>, ancestors: &EmbedAncestors) -> Self {
        let EmbedAncestors(ancestors) = ancestors;
        let policy = format!(
            "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors {ancestors}; \
             require-trusted-types-for 'script'"
        );
        Self {
            public_url,
            // Origins are ASCII without control characters.
            embed_policy: HeaderValue::try_from(policy)
                .unwrap_or(HeaderValue::from_static("frame-ancestors 'none'")),
        }
    }

    /// Returns the service's own address, if it is configured.
    pub fn public_url(&self) -> Option<&str> {
        self.public_url.as_ref().map(PublicUrl::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ancestors_are_sources_of_the_policy() {
        let sources =
            |text| EmbedAncestors::parse(text).map(|EmbedAncestors(sources)| sources.to_string());
        assert_eq!(sources("*").as_deref(), Ok("*"));
        assert_eq!(sources("none").as_deref(), Ok("'none'"));
        let two = sources("https://a.example, http://b.example:81");
        assert_eq!(two.as_deref(), Ok("https://a.example http://b.example:81"));
        for text in
            ["", "https://a.example;script-src *", "https://a.example/x", "'self'", "a.example"]
        {
            assert!(sources(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_public_url_is_an_origin() {
        assert_eq!(PublicUrl::parse_optional(""), Ok(None));
        assert!(PublicUrl::parse_optional("https://a.example").is_ok_and(|url| url.is_some()));
        for text in
            ["https://a.example/", "https://a.example/x", "a.example", "javascript:alert(1)"]
        {
            assert!(PublicUrl::parse_optional(text).is_err(), "{text}");
        }
    }
}
