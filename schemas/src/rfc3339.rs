//! Times as clients write them: RFC 3339.

use jiff::Timestamp;
use thiserror::Error;

/// Why a text is no time of RFC 3339.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Rfc3339Fault {
    /// It has another form.
    #[error("must be an RFC 3339 timestamp such as 2026-11-21T12:00:00Z")]
    Form,
    /// It has the form, and names no time that can be stored.
    #[error("must be a time that exists, and not later than 9999-12-30T22:00:00Z")]
    NoSuchTime,
}

/// Parses a time.
///
/// # Errors
/// If the text has another form, or names no time.
pub fn parse_rfc3339(text: &str) -> Result<Timestamp, Rfc3339Fault> {
    if !is_rfc3339(text) {
        return Err(Rfc3339Fault::Form);
    }
    text.parse().map_err(|_| Rfc3339Fault::NoSuchTime)
}

/// Whether a text has the form of RFC 3339. The library takes more: a time zone in brackets, which it would drop, and
/// forms of ISO 8601.
fn is_rfc3339(text: &str) -> bool {
    let is_form = |text: &[u8], form: &[u8]| {
        text.len() == form.len()
            && text.iter().zip(form).all(|(byte, form)| match form {
                b'0' => byte.is_ascii_digit(),
                b'T' => matches!(byte, b'T' | b't'),
                _ => byte == form,
            })
    };
    let Some((date_and_time, rest)) = text.as_bytes().split_at_checked(19) else { return false };
    let offset = match rest.strip_prefix(b".") {
        Some(rest) => {
            let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
            // What the library keeps.
            if !(1..=9).contains(&digits) {
                return false;
            }
            rest.get(digits..).unwrap_or_default()
        }
        None => rest,
    };
    is_form(date_and_time, b"0000-00-00T00:00:00")
        && (matches!(offset, b"Z" | b"z")
            || is_form(offset, b"+00:00")
            || is_form(offset, b"-00:00"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn only_the_forms_of_the_standard_are_times() {
        for text in
            ["2026-11-21T12:00:00Z", "2026-11-21t12:00:00.5z", "2026-11-21T14:00:00.000+02:00"]
        {
            assert_eq!(parse_rfc3339(text).unwrap().as_second(), 1_795_262_400, "{text}");
        }
        for text in [
            "",
            "2026-11-21",
            "2026-11-21T12:00Z",
            "2026-11-21 12:00:00Z",
            "2026-11-21T12:00:00",
            "2026-11-21T12:00:00.Z",
            "20261121T120000Z",
            "2026-11-21T14:00:00+02",
            "2026-11-21T14:00:00+02:00[Europe/Berlin]",
            "2026-11-21T12:00:00\u{ff3a}",
            "2026-11-21T12:00:00.0123456789Z",
        ] {
            assert_eq!(parse_rfc3339(text), Err(Rfc3339Fault::Form), "{text}");
        }
        for text in ["2026-02-30T12:00:00Z", "2026-11-21T25:00:00Z", "9999-12-31T23:59:59Z"] {
            assert_eq!(parse_rfc3339(text), Err(Rfc3339Fault::NoSuchTime), "{text}");
        }
    }
}
