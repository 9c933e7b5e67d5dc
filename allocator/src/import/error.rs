//! The errors of an import.

use super::file::FileReadError;

/// Why an import ended early, by what the user can do about it.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The arguments do not fit the file or the server: change them.
    #[error("{0}")]
    Usage(String),
    /// The file cannot be read or has the wrong format.
    #[error("{path}: {source}")]
    File {
        /// Path of the file.
        path: String,
        /// What is wrong.
        source: FileReadError,
    },
    /// The server rejected the import as a whole: a retry will be rejected too.
    #[error("the server rejected the import: {0}")]
    Rejected(String),
    /// The server was unavailable until the retries timed out: retry later.
    #[error("the server was unavailable for {seconds} s, giving up: {reason}")]
    Unreachable {
        /// Time since the first attempt, in seconds.
        seconds: u64,
        /// The last failure.
        reason: String,
    },
    /// The user stopped the import.
    #[error("stopped")]
    Stopped,
    /// A bug, or a failure of the machine.
    #[error("failed: {0}")]
    Internal(String),
}
