//! Waiting for a condition, within a bound.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

const PAUSE: Duration = Duration::from_millis(20);

/// Repeats `attempt` until it succeeds.
///
/// # Errors
/// What the last attempt said, once the bound has passed.
pub async fn eventually<T>(
    what: &str,
    bound: Duration,
    mut attempt: impl AsyncFnMut() -> Result<T>,
) -> Result<T> {
    let deadline = Instant::now() + bound;
    loop {
        let failed = match attempt().await {
            Ok(value) => return Ok(value),
            Err(failed) => failed,
        };
        if Instant::now() > deadline {
            return Err(failed).with_context(|| format!("{what}: not within {bound:?}"));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// As [`eventually`], in a thread without a runtime.
///
/// # Errors
/// What the last attempt said, once the bound has passed.
pub fn eventually_blocking<T>(
    what: &str,
    bound: Duration,
    mut attempt: impl FnMut() -> Result<T>,
) -> Result<T> {
    let deadline = Instant::now() + bound;
    loop {
        let failed = match attempt() {
            Ok(value) => return Ok(value),
            Err(failed) => failed,
        };
        if Instant::now() > deadline {
            return Err(failed).with_context(|| format!("{what}: not within {bound:?}"));
        }
        std::thread::sleep(PAUSE);
    }
}
