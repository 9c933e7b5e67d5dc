//! Parses "at least my submission": a receipt that must be counted, and how long to wait for it.
//!
//! `Consistency-Token: <receipt>`, or `?at_least=<receipt>` where a header cannot be set; the header wins.
//! `Prefer: wait=N` (RFC 7240) waits up to N whole seconds, at most 10. The waiting itself is in `aggregate_reader`
//! and `person_reader`.

use std::time::Duration;

use http::HeaderMap;
use runtime::problem::FieldFault;
use schemas::{PartitionCount, Receipt};
use utoipa::IntoParams;
use utoipa::openapi::path::{Parameter, ParameterIn};

use crate::parameters::optional_text;

/// The header that carries a receipt.
pub const CONSISTENCY_TOKEN: &str = "consistency-token";
/// The header that carries `wait=N`.
pub const PREFER: &str = "prefer";
/// The query parameter that carries a receipt.
pub const AT_LEAST: &str = "at_least";

/// The fault of a receipt whose partition does not exist.
pub const NO_SUCH_PARTITION: &str = "names a partition that does not exist";

const WAIT_MAX_SECONDS: u64 = 10;

/// A required submission and the time to wait for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AtLeast {
    /// The submission that must be counted.
    pub receipt: Receipt,
    /// How long to wait for the submission, if at all.
    pub wait: Option<Duration>,
    /// The header or query parameter that named the receipt, for problems.
    pub pointer: &'static str,
}

const TOKEN_POINTER: &str = "Consistency-Token";

/// The texts that can be receipts.
const RECEIPT_PATTERN: &str = r"^([0-9]+\.)?[0-9]+\.[0-9]+(-[0-9a-f]{16})?$";

impl IntoParams for AtLeast {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let of_receipt = |name, place, description| {
            optional_text(name, place, description, |text| text.pattern(Some(RECEIPT_PATTERN)))
        };
        vec![
            of_receipt(
                TOKEN_POINTER,
                ParameterIn::Header,
                "A receipt: the answer includes its submission, or is 412",
            ),
            of_receipt(AT_LEAST, ParameterIn::Query, "The same in the query"),
            optional_text(
                "Prefer",
                ParameterIn::Header,
                "`wait=N`: how many seconds to wait for the submission, at most 10; other preferences are ignored",
                |text| text.examples(["wait=2"]),
            ),
        ]
    }
}

/// Parses the headers and the query parameter, and collects every fault.
pub fn parse(
    headers: &HeaderMap,
    at_least: Option<&str>,
    faults: &mut Vec<FieldFault>,
) -> Option<AtLeast> {
    let header = headers.get(CONSISTENCY_TOKEN);
    let (text, pointer) = match (header, at_least) {
        (Some(token), _) => (Some(token.to_str().unwrap_or_default()), TOKEN_POINTER),
        (None, token) => (token, AT_LEAST),
    };
    let receipt = text.and_then(|text| receipt(text, pointer, faults));
    let wait = wait(headers, faults);
    receipt.map(|receipt| AtLeast { receipt, wait, pointer })
}

/// Parses a receipt. A partition number is a fault only if no log can have that many partitions.
///
/// Whether the receipt's log has the partition is checked by the readers, who know the log.
fn receipt(text: &str, pointer: &str, faults: &mut Vec<FieldFault>) -> Option<Receipt> {
    match text.parse::<Receipt>() {
        Ok(receipt) if receipt.address.partition.0 < PartitionCount::MAX => Some(receipt),
        Ok(_) => add_fault(faults, pointer, NO_SUCH_PARTITION),
        Err(fault) => add_fault(faults, pointer, &fault.to_string()),
    }
}

/// Parses the `wait` preference; other preferences are ignored.
fn wait(headers: &HeaderMap, faults: &mut Vec<FieldFault>) -> Option<Duration> {
    let value = headers
        .get_all(PREFER)
        .iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','))
        .filter_map(|preference| preference.split(';').next()?.split_once('='))
        .find(|(name, _)| name.trim().eq_ignore_ascii_case("wait"))
        .map(|(_, value)| value.trim().trim_matches('"'))?;
    let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    match value.parse() {
        Ok(seconds) if digits && seconds <= WAIT_MAX_SECONDS => Some(Duration::from_secs(seconds)),
        _ => add_fault(faults, "Prefer", "`wait` must be whole seconds from 0 to 10"),
    }
}

fn add_fault<T>(faults: &mut Vec<FieldFault>, pointer: &str, detail: &str) -> Option<T> {
    faults.push(FieldFault { pointer: pointer.to_owned(), detail: detail.to_owned() });
    None
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use http::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    use super::*;

    fn parse_request(
        headers: &[(&'static str, &str)],
        at_least: Option<&str>,
    ) -> Result<Option<AtLeast>, Vec<String>> {
        let headers = headers
            .iter()
            .filter_map(|(name, value)| {
                Some((HeaderName::from_static(name), HeaderValue::from_str(value).ok()?))
            })
            .collect();
        let mut faults = Vec::new();
        let parsed = parse(&headers, at_least, &mut faults);
        if faults.is_empty() {
            Ok(parsed)
        } else {
            Err(faults.into_iter().map(|fault| fault.pointer).collect())
        }
    }

    fn seconds(parsed: Result<Option<AtLeast>, Vec<String>>) -> Option<u64> {
        parsed.ok()??.wait.map(|wait| wait.as_secs())
    }

    #[test]
    fn the_header_takes_precedence_over_the_query() {
        let parsed = parse_request(&[("consistency-token", "3.7")], Some("4.8"));
        assert_eq!(parsed.map(|p| p.map(|p| p.receipt.to_string())), Ok(Some("3.7".into())));
        let parsed = parse_request(&[], Some("4.8"));
        assert_eq!(parsed.map(|p| p.map(|p| p.receipt.to_string())), Ok(Some("4.8".into())));
    }

    #[test]
    fn a_receipt_is_taken_with_its_signature_and_without() {
        for text in ["3.7-0123456789abcdef", "3.7"] {
            let parsed = parse_request(&[("consistency-token", text)], None).unwrap().unwrap();
            assert_eq!(parsed.receipt.to_string(), text);
        }
        assert_eq!(parse_request(&[], Some("3.7-0123")), Err(vec!["at_least".into()]));
    }

    #[test]
    fn all_invalid_tokens_and_waits_are_reported_together() {
        assert_eq!(
            parse_request(&[("consistency-token", "1024.0")], None),
            Err(vec!["Consistency-Token".into()])
        );
        assert_eq!(parse_request(&[], Some("x")), Err(vec!["at_least".into()]));
        let both = parse_request(&[("consistency-token", "-"), ("prefer", "wait=0.5")], None);
        assert_eq!(both, Err(vec!["Consistency-Token".into(), "Prefer".into()]));
        for wait in
            ["wait=11", "wait=-1", "wait=", "wait=+1", "wait=1e1", "wait=99999999999999999999"]
        {
            assert_eq!(
                parse_request(&[("prefer", wait)], None),
                Err(vec!["Prefer".into()]),
                "{wait}"
            );
        }
    }

    #[test]
    fn a_wait_is_found_among_other_preferences() {
        let token = ("consistency-token", "0.0");
        for prefer in
            ["wait=10", "respond-async, wait=10", "Wait=\"10\"; x=y", "handling=lenient, WAIT = 10"]
        {
            assert_eq!(
                seconds(parse_request(&[token, ("prefer", prefer)], None)),
                Some(10),
                "{prefer}"
            );
        }
        assert_eq!(seconds(parse_request(&[token, ("prefer", "respond-async")], None)), None);
    }

    proptest! {
        #[test]
        fn parsing_never_panics(token in "[ -~]{0,40}", prefer in "[ -~]{0,40}") {
            let _ = parse_request(&[("consistency-token", &token), ("prefer", &prefer)], None);
        }
    }
}
