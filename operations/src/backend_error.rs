//! Why an operation cannot use a backend, by whether a retry helps.

use storage::log::ReadError;
use storage::retry::Transient;
use storage::store::StoreError;

/// Why a log or a store cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BackendError {
    /// A backend is unavailable. Retryable.
    #[error("{0}")]
    Unavailable(String),
    /// A backend holds invalid data.
    #[error("{0}")]
    Invalid(String),
}

impl Transient for BackendError {
    fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}

impl From<ReadError> for BackendError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Unavailable(_) => Self::Unavailable(error.to_string()),
            ReadError::Missing(_) | ReadError::Damaged(_) => Self::Invalid(error.to_string()),
        }
    }
}

impl From<StoreError> for BackendError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(_) => Self::Unavailable(error.to_string()),
            StoreError::Corrupt(_) => Self::Invalid(error.to_string()),
        }
    }
}
