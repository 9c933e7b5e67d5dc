//! ETags and the conditions on them, `If-Match` and `If-None-Match` (RFC 9110, 13.1).

use http::header::{IF_MATCH, IF_NONE_MATCH};
use http::{HeaderMap, HeaderValue};
use sha2::{Digest, Sha256};

use super::content_coding::ContentCoding;

/// Returns 128 bits of the content's SHA-256 in hexadecimal.
pub fn digest(content: &[u8]) -> String {
    let hash: [u8; 32] = Sha256::digest(content).into();
    hex::encode(&hash[..16])
}

/// Returns the strong ETag of a response body.
pub fn etag_of(body: &[u8]) -> HeaderValue {
    quoted_etag(&digest(body))
}

/// Quotes an ETag. `tag` is hexadecimal.
pub fn quoted_etag(tag: &str) -> HeaderValue {
    HeaderValue::try_from(format!("\"{tag}\"")).unwrap_or(HeaderValue::from_static("\"\""))
}

/// Why a change of a resource must not be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailedPrecondition {
    /// `If-Match` names another version, or the resource does not exist.
    IfMatch,
    /// `If-None-Match` names this version, or is `*` and the resource exists.
    IfNoneMatch,
}

/// The conditions of a request that changes a resource.
#[derive(Debug, Clone, Default)]
pub struct WriteConditions {
    if_match: Vec<HeaderValue>,
    if_none_match: Vec<HeaderValue>,
}

impl WriteConditions {
    /// Reads the conditions of a request.
    pub fn of(headers: &HeaderMap) -> Self {
        let all = |name| headers.get_all(name).iter().cloned().collect();
        Self { if_match: all(IF_MATCH), if_none_match: all(IF_NONE_MATCH) }
    }

    /// Whether there is no condition.
    pub fn is_empty(&self) -> bool {
        self.if_match.is_empty() && self.if_none_match.is_empty()
    }

    /// Compares the conditions with the resource's ETag; `None` if the resource does not exist. Malformed lists match
    /// nothing. A client that read a compressed form names that one's ETag, which stands for the same state.
    ///
    /// # Errors
    /// When a condition does not hold.
    pub fn check(&self, current: Option<&HeaderValue>) -> Result<(), FailedPrecondition> {
        let any = |lines: &[HeaderValue], comparison| {
            current.is_some_and(|etag| {
                let forms = ContentCoding::COMPRESSED.map(|coding| coding.etag(etag));
                let matches = |line: &HeaderValue| {
                    let mut forms = forms.iter().chain([etag]);
                    forms.any(|form| any_matches(line.as_bytes(), form.as_bytes(), comparison))
                };
                lines.iter().any(matches)
            })
        };
        if !self.if_match.is_empty() && !any(&self.if_match, Comparison::Strong) {
            return Err(FailedPrecondition::IfMatch);
        }
        if any(&self.if_none_match, Comparison::Weak) {
            return Err(FailedPrecondition::IfNoneMatch);
        }
        Ok(())
    }
}

/// How tags are compared (RFC 9110, 8.8.3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    /// A weak tag matches nothing.
    Strong,
    /// A weak tag matches the strong tag of the same text.
    Weak,
}

/// Returns whether the client's list of tags contains `etag`, by weak comparison. Malformed lists match nothing.
pub fn has_already(headers: &HeaderMap, etag: &HeaderValue) -> bool {
    headers.get_all(IF_NONE_MATCH).iter().any(|line| {
        // Fast path: almost every client sends one strong tag.
        line == etag || any_matches(line.as_bytes(), etag.as_bytes(), Comparison::Weak)
    })
}

fn any_matches(line: &[u8], etag: &[u8], comparison: Comparison) -> bool {
    let mut rest = line.trim_ascii();
    if rest == b"*" {
        return true;
    }
    while let Some((tag, is_weak, after)) = first_tag(rest) {
        if tag == etag && !(is_weak && comparison == Comparison::Strong) {
            return true;
        }
        rest = after;
    }
    false
}

/// Splits a list after its first tag; returns the quoted tag without `W/`, whether it had `W/`, and the rest. A tag may
/// contain commas.
fn first_tag(list: &[u8]) -> Option<(&[u8], bool, &[u8])> {
    let start = list.iter().position(|byte| !matches!(byte, b' ' | b'\t' | b','))?;
    let list = list.get(start..)?;
    let weak = list.strip_prefix(b"W/");
    let list = weak.unwrap_or(list);
    let inner = list.strip_prefix(b"\"")?;
    let end = inner.iter().position(|byte| *byte == b'"')?;
    let (tag, rest) = list.split_at_checked(end + 2)?;
    Some((tag, weak.is_some(), rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn has(lines: &[&str]) -> bool {
        let mut headers = HeaderMap::new();
        for line in lines {
            if let Ok(value) = HeaderValue::from_str(line) {
                headers.append(IF_NONE_MATCH, value);
            }
        }
        has_already(&headers, &HeaderValue::from_static("\"a,b\""))
    }

    #[test]
    fn a_tag_matches_alone_in_lists_on_several_lines_weakly_and_as_star() {
        for lines in [
            &["\"a,b\""][..],
            &["W/\"a,b\""],
            &["*"],
            &[" * "],
            &["\"x\", W/\"y\" ,\"a,b\""],
            &["\"x\"", ",, \"a,b\","],
        ] {
            assert!(has(lines), "{lines:?}");
        }
    }

    #[test]
    fn other_tags_and_malformed_lists_do_not_match() {
        for lines in
            [&[][..], &[""], &["\"a\",\"b\""], &["a,b"], &["\"a,b"], &["w/\"a,b\""], &["\"x\"; *"]]
        {
            assert!(!has(lines), "{lines:?}");
        }
    }

    #[test]
    fn a_change_is_made_only_where_its_conditions_hold() {
        let check = |conditions: &[(http::HeaderName, &'static str)],
                     current: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            for (name, value) in conditions {
                headers.append(name, HeaderValue::from_static(value));
            }
            let current = current.map(HeaderValue::from_static);
            WriteConditions::of(&headers).check(current.as_ref())
        };
        let (a, b) = (Some("\"a\""), Some("\"b\""));
        for (conditions, current) in [
            (&[][..], a),
            (&[], None),
            (&[(IF_MATCH, "\"x\", \"a\"")], a),
            (&[(IF_MATCH, "\"x\""), (IF_MATCH, "\"a\"")], a),
            (&[(IF_MATCH, "*")], a),
            (&[(IF_MATCH, "\"a.gzip\"")], a),
            (&[(IF_MATCH, "\"x\", \"a.br\"")], a),
            (&[(IF_NONE_MATCH, "*")], None),
            (&[(IF_NONE_MATCH, "\"a\"")], b),
        ] {
            assert_eq!(check(conditions, current), Ok(()), "{conditions:?} {current:?}");
        }
        for (conditions, current) in [
            (&[(IF_MATCH, "\"a\"")], b),
            (&[(IF_MATCH, "\"a\"")], None),
            (&[(IF_MATCH, "*")], None),
            (&[(IF_MATCH, "W/\"a\"")], a),
            (&[(IF_MATCH, "a")], a),
            (&[(IF_MATCH, "\"a.zip\"")], a),
        ] {
            let failed = Err(FailedPrecondition::IfMatch);
            assert_eq!(check(conditions, current), failed, "{conditions:?} {current:?}");
        }
        for (conditions, current) in
            [(&[(IF_NONE_MATCH, "*")], a), (&[(IF_NONE_MATCH, "W/\"a\"")], a)]
        {
            let failed = Err(FailedPrecondition::IfNoneMatch);
            assert_eq!(check(conditions, current), failed, "{conditions:?} {current:?}");
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics(line in "[ -~]{0,60}") {
            let _ = has(&[&line]);
        }
    }
}
