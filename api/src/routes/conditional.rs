//! `If-None-Match` (RFC 9110, 13.1.2): decides whether the client has the answer already.

use http::header::IF_NONE_MATCH;
use http::{HeaderMap, HeaderValue};

/// Returns whether the client's list of tags contains `etag`, by weak comparison. Malformed lists match nothing.
pub(super) fn has_already(headers: &HeaderMap, etag: &HeaderValue) -> bool {
    headers.get_all(IF_NONE_MATCH).iter().any(|line| {
        // Fast path: almost every client sends one strong tag.
        line == etag || any_matches(line.as_bytes(), etag.as_bytes())
    })
}

fn any_matches(line: &[u8], etag: &[u8]) -> bool {
    let mut rest = line.trim_ascii();
    if rest == b"*" {
        return true;
    }
    while let Some((tag, after)) = first_tag(rest) {
        if tag == etag {
            return true;
        }
        rest = after;
    }
    false
}

/// Splits a list after its first tag; returns the quoted tag without `W/` and the rest. A tag may contain commas.
fn first_tag(list: &[u8]) -> Option<(&[u8], &[u8])> {
    let start = list.iter().position(|byte| !matches!(byte, b' ' | b'\t' | b','))?;
    let list = list.get(start..)?;
    let list = list.strip_prefix(b"W/").unwrap_or(list);
    let inner = list.strip_prefix(b"\"")?;
    let end = inner.iter().position(|byte| *byte == b'"')?;
    list.split_at_checked(end + 2)
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

    proptest! {
        #[test]
        fn parsing_never_panics(line in "[ -~]{0,60}") {
            let _ = has(&[&line]);
        }
    }
}
