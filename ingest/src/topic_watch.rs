//! Reads a property of the topics again and again, for whoever reports it.

use std::time::Duration;

use storage::open_error::OpenError;
use tokio_util::sync::CancellationToken;

/// Pause after a read that failed.
const RETRY_DELAY: Duration = Duration::from_secs(5);

/// Hands what `read` returns to `report`, every `interval` until `stop`. A read that fails is repeated soon: `property` is
/// then unknown, and stays as it was reported.
pub(crate) async fn watch_topics<T, R>(
    property: &'static str,
    interval: Duration,
    read: impl Fn() -> R,
    mut report: impl FnMut(T),
    stop: CancellationToken,
) where
    R: Future<Output = Result<T, OpenError>>,
{
    let watch = async {
        loop {
            let delay = match read().await {
                Ok(value) => {
                    report(value);
                    interval
                }
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
