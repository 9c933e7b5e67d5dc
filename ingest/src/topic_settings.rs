//! Reports settings of topics that were changed while the process runs, and with which no process would start.
//!
//! A `max.message.bytes` below a batch makes the log look sealed: its brokers reject records for their size, until the
//! limit is raised.

use std::collections::BTreeSet;
use std::time::Duration;

use runtime::metrics::{Metrics, MetricsError};
use storage::log::kafka::TopicError;
use storage::open_error::OpenError;
use tokio_util::sync::CancellationToken;

use crate::topic_watch::{Completeness, watch_topics};

/// Time between two reads of the settings: submissions may be refused meanwhile.
const INTERVAL: Duration = Duration::from_secs(30);

/// Reports by log line and metric, until `stop`, which settings of the topics are refused.
///
/// `refused_settings` returns one error for each, and one for each topic whose settings cannot be read: these stay as they
/// were reported.
///
/// # Errors
/// When a metric name is already registered.
pub fn report_topic_settings<F, R>(
    refused_settings: F,
    metrics: &Metrics,
    stop: CancellationToken,
) -> Result<impl Future<Output = ()> + Send + use<F, R>, MetricsError>
where
    F: Fn() -> R + Send + Sync,
    R: Future<Output = Result<Vec<TopicError>, OpenError>> + Send,
{
    let gauge = metrics.gauge_vec(
        "ingest_topic_setting_refused",
        "1 while a topic has a setting with which ingest would not start.",
        &["topic", "setting"],
    )?;
    let (mut reported, mut unreadable) = (BTreeSet::new(), BTreeSet::new());
    let report = move |refused: Vec<TopicError>| {
        let before = std::mem::take(&mut reported);
        let unreadable_before = std::mem::take(&mut unreadable);
        for reason in &refused {
            if let Some(topic) = reason.unreadable_topic() {
                if !unreadable_before.contains(topic) {
                    tracing::warn!(%reason, "settings of a topic are unknown, retrying");
                }
                unreadable.insert(topic.to_owned());
                reported.extend(before.iter().filter(|(known, _)| known == topic).cloned());
            }
            let Some((topic, setting)) = reason.refused_setting() else { continue };
            let key = (topic.to_owned(), setting);
            if !before.contains(&key) {
                tracing::error!(%reason, "topic setting is refused");
            }
            gauge.with_label_values(&[topic, setting]).set(1);
            reported.insert(key);
        }
        for (topic, setting) in before.difference(&reported) {
            tracing::info!(topic, setting, "topic setting is accepted again");
            gauge.with_label_values(&[topic.as_str(), setting]).set(0);
        }
        if unreadable.is_empty() { Completeness::Complete } else { Completeness::Partial }
    };
    Ok(watch_topics("settings", INTERVAL, refused_settings, report, stop))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use parking_lot::Mutex;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_limit_below_a_batch_is_reported_by_name_until_it_is_raised() {
        let small = || TopicError::SmallRecords {
            topic: "submissions".into(),
            found: 5_000,
            required: 1_000_000,
        };
        let unreadable = |topic: &str| {
            let (topic, reason) = (topic.to_owned(), "none".to_owned());
            TopicError::UnreadableSettings { topic, reason }
        };
        let unavailable = || OpenError::Unavailable { backend: "the log", reason: "none".into() };
        let (metrics, stop) = (Metrics::new("test"), CancellationToken::new());
        let answers = Mutex::new(vec![
            Ok(vec![unreadable("definitions")]),
            Err(unavailable()),
            Ok(vec![unreadable("submissions")]),
            Ok(vec![unreadable("definitions"), small()]),
            Ok(vec![small()]),
            Ok(Vec::new()),
        ]);
        let gauge = || {
            let text = String::from_utf8(metrics.render()).unwrap();
            let labels = r#"{setting="max.message.bytes",topic="submissions"} "#;
            let sample = format!("\nallocator_ingest_topic_setting_refused{labels}");
            text.split(&sample).nth(1).and_then(|value| value.chars().next())
        };
        let seen = Mutex::new(Vec::new());
        let look = || {
            seen.lock().push(gauge());
            let answer = answers.lock().pop();
            if answer.is_none() {
                stop.cancel();
            }
            async move { answer.unwrap_or(Ok(Vec::new())) }
        };
        report_topic_settings(look, &metrics, stop.clone()).unwrap().await;
        let refused = Some('1');
        let expected = [None, None, refused, refused, refused, refused, Some('0')];
        assert_eq!(*seen.lock(), expected);
    }
}
