//! Reads a property of the topics again and again, for whoever reports it.

use std::time::Duration;

use storage::open_error::OpenError;
use tokio_util::sync::CancellationToken;

/// Pause after a read that failed.
const RETRY_DELAY: Duration = Duration::from_secs(5);

/// Whether a read has returned the property of all topics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Completeness {
    Complete,
    Partial,
}

/// Hands what `read` returns to `report`, every `interval` until `stop`.
///
/// A read that fails is repeated soon, and so is one of which `report` says that a part is unknown: `property` stays as it
/// was reported.
pub(crate) async fn watch_topics<T, R>(
    property: &'static str,
    interval: Duration,
    read: impl Fn() -> R,
    mut report: impl FnMut(T) -> Completeness,
    stop: CancellationToken,
) where
    R: Future<Output = Result<T, OpenError>>,
{
    let watch = async {
        loop {
            let delay = match read().await {
                Ok(value) => match report(value) {
                    Completeness::Complete => interval,
                    Completeness::Partial => RETRY_DELAY,
                },
                Err(error) => {
                    tracing::debug!(%error, property, "failed to read a property of the topics, retrying");
                    RETRY_DELAY
                }
            };
            tokio::time::sleep(delay).await;
        }
    };
    stop.run_until_cancelled(watch).await;
}
