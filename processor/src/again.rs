//! Asking a place again that does not answer, for whoever reads much and long and has nobody else to begin anew.

use std::time::Duration;

/// How often it is asked, and how long after.
const ATTEMPTS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(500);

/// An error that tells whether the same may go well later.
pub(crate) trait Away {
    /// Whether a place only does not answer now.
    fn is_away(&self) -> bool;
}

/// Asks a place that does not answer again.
///
/// # Errors
/// As it said last.
pub(crate) async fn again<T, E: Away>(mut ask: impl AsyncFnMut() -> Result<T, E>) -> Result<T, E> {
    let mut attempt = 1;
    loop {
        match ask().await {
            Err(error) if error.is_away() && attempt < ATTEMPTS => attempt += 1,
            answer => return answer,
        }
        tokio::time::sleep(PAUSE).await;
    }
}
