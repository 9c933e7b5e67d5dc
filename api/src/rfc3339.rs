//! Timestamps in responses.

use jiff::Timestamp;

/// Formats milliseconds since 1970 as RFC 3339 with milliseconds in UTC; `None` if out of range.
pub fn rfc3339(ms: u64) -> Option<String> {
    Timestamp::from_millisecond(i64::try_from(ms).ok()?).ok().map(|at| format!("{at:.3}"))
}

/// Formats milliseconds of a full second since 1970 as RFC 3339 in UTC; `None` if out of range.
pub fn rfc3339_seconds(ms: u64) -> Option<String> {
    Timestamp::from_millisecond(i64::try_from(ms).ok()?).ok().map(|at| format!("{at:.0}"))
}
