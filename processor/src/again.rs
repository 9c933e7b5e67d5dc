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

/// How often a place that does not answer is asked again.
pub(crate) struct Patience {
    asked: u32,
}

impl Patience {
    /// It was not asked yet.
    pub fn new() -> Self {
        Self { asked: 1 }
    }

    /// Waits before it is asked again.
    ///
    /// # Errors
    /// What it said, when it is no use to ask again.
    pub async fn wait<E: Away>(&mut self, error: E) -> Result<(), E> {
        if self.asked >= ATTEMPTS || !error.is_away() {
            return Err(error);
        }
        self.asked += 1;
        tokio::time::sleep(PAUSE).await;
        Ok(())
    }
}

/// Asks a place that does not answer again.
///
/// # Errors
/// As it said last.
pub(crate) async fn again<T, E: Away, Asking: Future<Output = Result<T, E>>>(
    ask: impl Fn() -> Asking,
) -> Result<T, E> {
    let mut patience = Patience::new();
    loop {
        match ask().await {
            Ok(answer) => return Ok(answer),
            Err(error) => patience.wait(error).await?,
        }
    }
}
