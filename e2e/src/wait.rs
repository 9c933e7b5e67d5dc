//! Waiting for a condition with a timeout.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Repeats `attempt` until it succeeds.
///
/// # Errors
/// The last error, once the timeout has passed.
pub async fn eventually<T>(
    what: &str,
    timeout: Duration,
    mut attempt: impl AsyncFnMut() -> Result<T>,
) -> Result<T> {
    let deadline = Instant::now() + timeout;
    loop {
        let error = match attempt().await {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        if Instant::now() > deadline {
            return Err(error).with_context(|| format!("{what}: not within {timeout:?}"));
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// Does the same as [`eventually`] on a thread without a runtime.
///
/// # Errors
/// The last error, once the timeout has passed.
pub fn eventually_blocking<T>(
    what: &str,
    timeout: Duration,
    mut attempt: impl FnMut() -> Result<T>,
) -> Result<T> {
    let deadline = Instant::now() + timeout;
    loop {
        let error = match attempt() {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        if Instant::now() > deadline {
            return Err(error).with_context(|| format!("{what}: not within {timeout:?}"));
        }
        std::thread::sleep(POLL_INTERVAL);
    }
}
