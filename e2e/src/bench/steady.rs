//! Waiting until a rate no longer rises: the brokers' virtual machine compiles for half a minute under a new load, and
//! takes the processor time for that from what is measured.

use std::time::Duration;

use anyhow::Result;

/// How long one look at the rate takes.
pub const WINDOW: Duration = Duration::from_secs(3);
const MOST_WINDOWS: usize = 12;
/// Rates of a shared machine go up and down by that much by themselves.
const NOISE: f64 = 1.05;

/// Measures in windows until two in a row are not above the best one before.
///
/// # Errors
/// When a window cannot be measured.
pub async fn until_steady(mut window: impl AsyncFnMut() -> Result<f64>) -> Result<()> {
    let (mut best, mut not_better) = (0.0, 0);
    for _ in 0..MOST_WINDOWS {
        let rate = window().await?;
        not_better = if rate > best * NOISE { 0 } else { not_better + 1 };
        best = rate.max(best);
        if not_better == 2 {
            break;
        }
    }
    Ok(())
}
