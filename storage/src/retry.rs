//! Retries calls to an unavailable backend, for long reads that no caller would start over.
//!
//! Owns the number of attempts and the pauses. Each error type decides by [`Transient`] whether it is retried.

use std::time::Duration;

use crate::log::ReadError;
use crate::store::StoreError;

/// Maximum calls, including the first one.
const MAX_ATTEMPTS: u32 = 20;
const RETRY_DELAY: Duration = Duration::from_millis(500);

/// An error that distinguishes transient from permanent failures.
pub trait Transient {
    /// Whether the same call may succeed later, because the backend is only unavailable.
    fn is_transient(&self) -> bool;
}

impl Transient for ReadError {
    fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}

impl Transient for StoreError {
    fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}

/// The attempts left for one backend call that is resumed after a failure instead of repeated from its start.
#[derive(Debug)]
pub struct RetryBudget {
    attempts: u32,
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self { attempts: 1 }
    }
}

impl RetryBudget {
    /// Waits before the next attempt.
    ///
    /// # Errors
    /// The given error, if it is permanent or no attempt is left.
    pub async fn wait<E: Transient>(&mut self, error: E) -> Result<(), E> {
        if self.attempts >= MAX_ATTEMPTS || !error.is_transient() {
            return Err(error);
        }
        self.attempts += 1;
        tokio::time::sleep(RETRY_DELAY).await;
        Ok(())
    }
}

/// Repeats `call` while it fails with a transient error and attempts are left.
///
/// # Errors
/// The last error.
pub async fn retry<T, E: Transient, Call: Future<Output = Result<T, E>>>(
    call: impl Fn() -> Call,
) -> Result<T, E> {
    let mut budget = RetryBudget::default();
    loop {
        match call().await {
            Ok(value) => return Ok(value),
            Err(error) => budget.wait(error).await?,
        }
    }
}
