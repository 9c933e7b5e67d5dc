//! The wall clock. Durations are measured with a monotonic clock instead.

use std::time::{SystemTime, UNIX_EPOCH};

/// Returns the milliseconds since 1970, or 0 if the clock is set before 1970.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
