//! Reports topics with one replica on a cluster that could keep three: a lost disk would lose acknowledged records.

use std::time::Duration;

use runtime::metrics::{Metrics, MetricsError};
use storage::open_error::OpenError;
use tokio_util::sync::CancellationToken;

use crate::topic_watch::{Completeness, watch_topics};

/// Time between two reads of the topics: brokers come and go, and replicas are reassigned.
const INTERVAL: Duration = Duration::from_secs(300);

/// Reports by log line and metric, until `stop`, whether records have one replica though there are three brokers.
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
        "1 while records have one replica although the cluster has three or more brokers.",
    )?;
    let report = move |brokers: Option<usize>| {
        if let (Some(brokers), 0) = (brokers, unreplicated.get()) {
            tracing::warn!(
                brokers,
                "acknowledged records have one replica although the cluster could keep three: set \
                 kafka.replication_factor=3, and reassign the replicas of existing topics"
            );
        }
        unreplicated.set(brokers.is_some().into());
        Completeness::Complete
    };
    Ok(watch_topics("replicas", INTERVAL, brokers_without_replicas, report, stop))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use parking_lot::Mutex;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_replica_on_three_brokers_is_reported_while_it_lasts() {
        let unavailable = || OpenError::Unavailable { backend: "the log", reason: "none".into() };
        let (metrics, stop) = (Metrics::new("test"), CancellationToken::new());
        let answers =
            Mutex::new(vec![Ok(None), Err(unavailable()), Ok(Some(3)), Err(unavailable())]);
        let gauge = || {
            let text = String::from_utf8(metrics.render()).unwrap();
            let sample = "\nallocator_ingest_log_unreplicated ";
            text.split(sample).nth(1).unwrap().chars().next().unwrap()
        };
        let seen = Mutex::new(Vec::new());
        let look = || {
            seen.lock().push(gauge());
            let answer = answers.lock().pop();
            if answer.is_none() {
                stop.cancel();
            }
            async move { answer.unwrap_or(Ok(None)) }
        };
        report_replication(look, &metrics, stop.clone()).unwrap().await;
        assert_eq!(*seen.lock(), ['0', '0', '1', '1', '0']);
    }
}
