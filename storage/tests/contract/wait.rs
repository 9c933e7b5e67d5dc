//! Waits for conditions, with a timeout.

use std::time::{Duration, Instant};

/// Bounds every wait of the tests.
pub const TEST_TIMEOUT: Duration = Duration::from_secs(30);

const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// Waits until `condition` holds.
///
/// # Panics
/// When it does not hold within `timeout`.
pub async fn until(
    condition_name: &str,
    timeout: Duration,
    mut condition: impl AsyncFnMut() -> bool,
) {
    let deadline = Instant::now() + timeout;
    while !condition().await {
        assert!(Instant::now() < deadline, "not within {timeout:?}: {condition_name}");
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}
