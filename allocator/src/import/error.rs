//! Why an import ends before its file does.

use super::file::ReadError;

/// Why an import ends before its file does, by what its user does.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// What was asked for cannot be done: ask otherwise.
    #[error("{0}")]
    Asked(String),
    /// The file cannot be read, or is not what it should be.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: String,
        /// Why.
        source: ReadError,
    },
    /// The server refuses the import as a whole: the same again will be refused again.
    #[error("the server refuses: {0}")]
    Refused(String),
    /// The server did not answer, or could not take submissions, for too long: try again later.
    #[error("gave up on the server after {seconds} s without success: {reason}")]
    Unreachable {
        /// For how long it was tried.
        seconds: u64,
        /// What happened last.
        reason: String,
    },
    /// Stopped by its user.
    #[error("stopped")]
    Stopped,
    /// A mistake of ours, or of the machine.
    #[error("failed: {0}")]
    Internal(String),
}
