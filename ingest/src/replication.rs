//! Reports topics with one replica on a cluster that could keep three: a lost disk would lose acknowledged records.

use std::time::Duration;

use runtime::metrics::{Metrics, MetricsError};
use storage::open_error::OpenError;
use tokio_util::sync::CancellationToken;

const RETRY_DELAY: Duration = Duration::from_secs(5);

/// Counts brokers once, and reports by log line and metric if records have one replica though there are three brokers.
///
/// `brokers_without_replicas` returns their number, or `None` if records are replicated or cannot be. One replica may be
/// meant, so nothing is refused.
///
/// # Errors
/// When a metric name is already registered.
pub fn report_replication<F, R>(
    brokers_without_replicas: F,
    metrics: &Metrics,
    stop: CancellationToken,
) -> Result<impl Future<Output = ()> + Send + use<F, R>, MetricsError>
where
    F: Fn() -> R + Send + Sync,
    R: Future<Output = Result<Option<usize>, OpenError>> + Send,
{
    let unreplicated = metrics.gauge(
        "ingest_log_unreplicated",
        "1 while kafka.replication_factor is 1 although the cluster has three or more brokers.",
    )?;
    Ok(async move {
        let report = async {
            loop {
                match brokers_without_replicas().await {
                    Ok(None) => return,
                    Ok(Some(brokers)) => {
                        unreplicated.set(1);
                        tracing::warn!(
                            brokers,
                            replication_factor = 1,
                            "acknowledged records have one replica although the cluster could keep three: set \
                             kafka.replication_factor=3, and reassign the replicas of existing topics"
                        );
                        return;
                    }
                    Err(error) => {
                        tracing::debug!(%error, "failed to count brokers, retrying");
                        tokio::time::sleep(RETRY_DELAY).await;
                    }
                }
            }
        };
        stop.run_until_cancelled(report).await;
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_replica_on_three_brokers_is_reported_once_kafka_can_be_reached() {
        for (brokers, expected) in [(Some(3), "1"), (None, "0")] {
            let metrics = Metrics::new("test");
            let failed = AtomicBool::new(false);
            let count = || {
                let fails = !failed.swap(true, Ordering::Relaxed);
                async move {
                    let backend = "the log";
                    match fails {
                        true => Err(OpenError::Unavailable { backend, reason: "none".into() }),
                        false => Ok(brokers),
                    }
                }
            };
            report_replication(count, &metrics, CancellationToken::new()).unwrap().await;
            let text = String::from_utf8(metrics.render()).unwrap();
            let sample = format!("\nallocator_ingest_log_unreplicated {expected}\n");
            assert!(text.contains(&sample), "{text}");
        }
    }
}
