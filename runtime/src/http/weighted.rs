//! Items with weights, as `Accept` and `Accept-Encoding` list them (RFC 9110, 12.4.2).

/// Splits lines like `gzip;q=0.5, br` into names and weights, in thousandths. 0 means "not acceptable".
///
/// Separators within quoted strings separate nothing. A malformed weight makes its item unacceptable.
pub(super) fn weighted_items<'a>(
    lines: impl Iterator<Item = &'a str>,
) -> impl Iterator<Item = (&'a str, u16)> {
    lines.flat_map(|line| line.split(outside_quotes(','))).map(weighted)
}

fn weighted(item: &str) -> (&str, u16) {
    let mut parts = item.split(outside_quotes(';')).map(str::trim);
    let name = parts.next().unwrap_or_default();
    let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
    let thousandths = |text: &str| {
        let weight: f32 = text.parse().ok()?;
        (0.0..=1.0).contains(&weight).then_some((weight * 1000.0) as u16)
    };
    (name, weight.map_or(Some(1000), thousandths).unwrap_or(0))
}

/// Matches a separator outside quoted strings, in a text that is searched from its beginning.
fn outside_quotes(separator: char) -> impl FnMut(char) -> bool {
    let (mut is_quoted, mut is_escaped) = (false, false);
    move |character| {
        if is_escaped {
            is_escaped = false;
            return false;
        }
        match character {
            '\\' => is_escaped = is_quoted,
            '"' => is_quoted = !is_quoted,
            _ => {}
        }
        character == separator && !is_quoted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_weights_are_split_outside_quotes_alone() {
        for (line, expected) in [
            ("", &[("", 1000)][..]),
            ("br", &[("br", 1000)]),
            (" br ; q=0.5 ,gzip;Q=0", &[("br", 500), ("gzip", 0)]),
            ("a;q=0.25;q=1", &[("a", 250)]),
            ("a;q=2, b;q=x, c;q=-0.5", &[("a", 0), ("b", 0), ("c", 0)]),
            ("a;n=\"x;q=0.1\", b", &[("a", 1000), ("b", 1000)]),
            ("a;n=\"x;q=0.1\";q=0.5", &[("a", 500)]),
            ("a;n=\"\\\";q=0.1\";q=0.5, b", &[("a", 500), ("b", 1000)]),
            ("a;n=\"x, b;q=0.1\"", &[("a", 1000)]),
            // A quote that does not end.
            ("a;n=\"x, b;q=0.1", &[("a", 1000)]),
        ] {
            let items: Vec<_> = weighted_items([line].into_iter()).collect();
            assert_eq!(items, expected, "{line}");
        }
    }
}
