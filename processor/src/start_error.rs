//! Errors of starting the processor.

use runtime::metrics::MetricsError;

/// Why the processor did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The deployment began with another topic or partition count than is configured.
    #[error("{0}")]
    LogMismatch(String),
    /// Another version of the fold derived the stored totals.
    #[error("{0}")]
    FoldVersion(String),
    /// The store holds damaged data.
    #[error("{0}")]
    Store(String),
    /// A metric cannot be registered.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// The operating system did not start a thread.
    #[error("failed to start the thread of the log source")]
    Thread(#[from] std::io::Error),
}
