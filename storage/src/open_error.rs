//! Errors of opening a backend, and the retry loop around it. Owns no conversions from the errors of adapters: each
//! adapter has its own.

use std::time::Duration;

use crate::secret::SecretError;

const RETRY_DELAY: Duration = Duration::from_secs(1);

/// Why a backend could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The backend is unavailable: try again.
    #[error("{backend}: {reason}")]
    Unavailable {
        /// The backend, such as `the log`.
        backend: &'static str,
        /// The adapter's error.
        reason: String,
    },
    /// The backend is not what is configured: only an operator can help.
    #[error("{backend}: {reason}")]
    Invalid {
        /// The backend, such as `the log`.
        backend: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The secret for hashing persons' ids is not available.
    #[error(transparent)]
    Secret(#[from] SecretError),
}

impl OpenError {
    pub(crate) fn invalid(backend: &'static str, reason: impl ToString) -> Self {
        Self::Invalid { backend, reason: reason.to_string() }
    }

    /// Whether the same attempt may succeed later.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }
}

/// Opens a backend, and retries without limit while it is unavailable.
///
/// # Errors
/// The first permanent error.
pub async fn retry_until_available<T>(
    mut open: impl AsyncFnMut() -> Result<T, OpenError>,
) -> Result<T, OpenError> {
    loop {
        match open().await {
            Err(error) if error.is_transient() => {
                let retry_in_ms = RETRY_DELAY.as_millis() as u64;
                tracing::warn!(%error, retry_in_ms, "backend is unavailable, retrying");
                tokio::time::sleep(RETRY_DELAY).await;
            }
            opened => return opened,
        }
    }
}
