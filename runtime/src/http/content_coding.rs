//! Content codings: which one an answer is compressed with, and the ETags of its forms (RFC 9110, 8.4.1 and 12.5.3).
//!
//! The compressed forms of an answer are representations of their own, so each has a strong ETag of its own: the plain
//! one's, and the coding's name behind it. Compressing is up to the services.

use http::header::ACCEPT_ENCODING;
use http::{HeaderMap, HeaderValue};

use super::weighted::weighted_items;

/// How a body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ContentCoding {
    /// Not at all.
    Identity,
    /// gzip.
    Gzip,
    /// Zstandard.
    Zstd,
    /// Brotli.
    Brotli,
}

impl ContentCoding {
    /// The codings that compress; the first is preferred where the client likes several the same.
    pub const COMPRESSED: [Self; 3] = [Self::Brotli, Self::Zstd, Self::Gzip];

    const fn name(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::Brotli => "br",
        }
    }

    /// Returns the value of `Content-Encoding`; `None` for a plain body.
    pub fn header_value(self) -> Option<HeaderValue> {
        (self != Self::Identity).then(|| HeaderValue::from_static(self.name()))
    }

    /// Chooses among offered codings the one that the client likes best. A plain body is always possible.
    pub fn accepted(request: &HeaderMap, offered: &[Self]) -> Self {
        if !request.contains_key(ACCEPT_ENCODING) {
            return Self::Identity;
        }
        let weights = Weights::of(request);
        let mut best = (Self::Identity, weights.named(Self::Identity).unwrap_or(0));
        for coding in offered.iter().rev() {
            let weight = weights.of_coding(*coding);
            if weight > 0 && weight >= best.1 {
                best = (*coding, weight);
            }
        }
        best.0
    }

    /// Returns the ETag of a compressed form of the answer with this strong ETag.
    pub fn etag(self, plain: &HeaderValue) -> HeaderValue {
        let Some(tag) = plain.as_bytes().strip_suffix(b"\"").filter(|_| self != Self::Identity)
        else {
            return plain.clone();
        };
        let tag = [tag, b".", self.name().as_bytes(), b"\""].concat();
        HeaderValue::from_bytes(&tag).unwrap_or_else(|_| plain.clone())
    }
}

/// The weights of a request's `Accept-Encoding`, in thousandths. 0 means "not acceptable".
struct Weights<'a> {
    named: Vec<(&'a str, u16)>,
}

impl<'a> Weights<'a> {
    fn of(request: &'a HeaderMap) -> Self {
        let lines = request.get_all(ACCEPT_ENCODING).iter().filter_map(|line| line.to_str().ok());
        Self { named: weighted_items(lines).collect() }
    }

    fn named(&self, coding: ContentCoding) -> Option<u16> {
        let is_it = |name: &str| {
            name.eq_ignore_ascii_case(coding.name())
                || (coding == ContentCoding::Gzip && name.eq_ignore_ascii_case("x-gzip"))
        };
        self.named.iter().find(|(name, _)| is_it(name)).map(|(_, weight)| *weight)
    }

    fn of_coding(&self, coding: ContentCoding) -> u16 {
        let every = || self.named.iter().find(|(name, _)| *name == "*").map(|(_, weight)| *weight);
        self.named(coding).or_else(every).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::ContentCoding::{Brotli, Gzip, Identity, Zstd};
    use super::*;

    fn accepted(lines: &[&'static str]) -> ContentCoding {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(ACCEPT_ENCODING, HeaderValue::from_static(line));
        }
        ContentCoding::accepted(&headers, &ContentCoding::COMPRESSED)
    }

    #[test]
    fn the_client_s_favourite_is_chosen_and_refused_codings_are_not() {
        for (lines, expected) in [
            (&[][..], Identity),
            (&[""], Identity),
            (&["gzip"], Gzip),
            (&["x-gzip"], Gzip),
            (&["GZIP;Q=0.001"], Gzip),
            (&["gzip, deflate, br, zstd"], Brotli),
            (&["gzip, deflate", "zstd"], Zstd),
            (&["br;q=0.5, gzip;q=0.8"], Gzip),
            (&["*"], Brotli),
            (&["*, br;q=0"], Zstd),
            (&["*;q=0, gzip"], Gzip),
            (&["gzip;q=0"], Identity),
            (&["gzip ; q=0.000"], Identity),
            (&["gzip;q=0.3, identity;q=0.5"], Identity),
            (&["identity;q=0, gzip"], Gzip),
            (&["gzip;q=nan, br;q=2, zstd;q=-1"], Identity),
            (&["compress, deflate"], Identity),
            (&["br;note=\";q=0, gzip\", zstd;q=0.5"], Brotli),
        ] {
            assert_eq!(accepted(lines), expected, "{lines:?}");
        }
    }

    #[test]
    fn each_form_of_an_answer_has_an_etag_of_its_own() {
        let plain = HeaderValue::from_static("\"v1\"");
        let tags = [Identity, Gzip, Zstd, Brotli].map(|coding| coding.etag(&plain));
        assert_eq!(tags, ["\"v1\"", "\"v1.gzip\"", "\"v1.zstd\"", "\"v1.br\""]);
    }
}
