//! The media types of requests: of the body, and of the response that the client accepts (RFC 9110, 12.5.1).

use http::HeaderMap;
use http::header::{ACCEPT, CONTENT_TYPE};

use super::weighted::weighted_items;

/// Returns whether the body has this media type, with any parameters. False without a `Content-Type`.
pub fn has_media_type(headers: &HeaderMap, media_type: &str) -> bool {
    let given = headers.get(CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
    let essence = given.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    essence.eq_ignore_ascii_case(media_type.as_bytes())
}

/// Returns whether a route with a page and a JSON form responds with JSON.
///
/// Browsers name HTML when they open a page, and scripts name JSON.
pub fn prefers_json(headers: &HeaderMap) -> bool {
    prefers(headers, "application/json", "text/html")
}

/// Returns whether `Accept` gives a media type more weight than the default one, or as much and names it more exactly.
pub fn prefers(headers: &HeaderMap, media_type: &str, default: &str) -> bool {
    let lines = headers.get_all(ACCEPT).iter().filter_map(|line| line.to_str().ok());
    let ranges: Vec<_> = weighted_items(lines).collect();
    let acceptance = |media_type| Acceptance::of(media_type, &ranges);
    let wanted = acceptance(media_type);
    wanted.weight > 0 && wanted > acceptance(default)
}

/// How much a client likes a media type. Ordered by weight, then by how exactly the type is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
struct Acceptance {
    /// In thousandths. 0 means "not acceptable".
    weight: u16,
    precedence: Option<Precedence>,
}

/// How exactly a media range names a type: the most exact range decides. Parameters are not compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Precedence {
    /// `*/*`
    AnyType,
    /// `text/*`
    AnySubtype,
    /// `text/html`
    Exact,
}

impl Acceptance {
    fn of(media_type: &str, ranges: &[(&str, u16)]) -> Self {
        let matching = ranges
            .iter()
            .filter_map(|(range, weight)| Some((precedence(range, media_type)?, *weight)));
        matching.max().map_or_else(Self::default, |(precedence, weight)| Self {
            weight,
            precedence: Some(precedence),
        })
    }
}

/// Returns how exactly a range names a type; `None` if the range does not include it.
fn precedence(range: &str, media_type: &str) -> Option<Precedence> {
    if range.eq_ignore_ascii_case(media_type) {
        return Some(Precedence::Exact);
    }
    match range.strip_suffix("/*")? {
        "*" => Some(Precedence::AnyType),
        prefix => {
            let (main_type, _) = media_type.split_once('/')?;
            prefix.eq_ignore_ascii_case(main_type).then_some(Precedence::AnySubtype)
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn json_is_preferred_by_weight_and_then_by_the_more_exact_range() {
        for (lines, expected) in [
            (&[][..], false),
            (&[""], false),
            (&["*/*"], false),
            (&["text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"], false),
            (&["application/json"], true),
            (&["Application/JSON; charset=utf-8"], true),
            (&["application/json, text/plain, */*"], true),
            (&["application/*"], true),
            (&["application/json-seq"], false),
            (&["application/json, text/html"], false),
            (&["text/html", "application/json"], false),
            (&["text/html;q=0.9, application/json"], true),
            (&["application/json;q=0.9, text/html"], false),
            (&["application/json;q=0"], false),
            (&["application/json;q=0, text/html;q=0"], false),
            (&["application/json ; q=0.5", "text/html ; q=0.000"], true),
            (&["text/html;q=0, */*"], true),
            (&["text/*;q=0.3, application/json;q=0.2"], false),
            (&["application/*;q=0, application/json;q=0.1"], true),
            (&["application/json;q=0, */*"], false),
            (&["application/json;q=2"], false),
            (&["text/plain;title=\"a, application/json\""], false),
            (&["text/plain;title=\"\\\", \";q=0.1, application/json"], true),
            (&["application/json;title=\"a;q=0.1\", text/html;q=0.5"], true),
            (&["text/html;title=\";q=0\", application/json;q=0.5"], false),
        ] {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(ACCEPT, HeaderValue::from_static(line));
            }
            assert_eq!(prefers_json(&headers), expected, "{lines:?}");
        }
    }
}
