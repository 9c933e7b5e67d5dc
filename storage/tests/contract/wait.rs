//! Waiting for what must come to be, with a bound.

use std::time::{Duration, Instant};

/// Beyond this, what is waited for will not come.
pub const PATIENCE: Duration = Duration::from_secs(30);

const POLL: Duration = Duration::from_millis(5);

/// Waits until `condition` holds.
///
/// # Panics
/// When it does not within `bound`.
pub async fn until(what: &str, bound: Duration, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + bound;
    while !condition().await {
        assert!(Instant::now() < deadline, "within {bound:?} it did not happen that {what}");
        tokio::time::sleep(POLL).await;
    }
}
