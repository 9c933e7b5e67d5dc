//! Creates and drops Kafka clients away from the runtime.
//!
//! Both wait for the client's own threads, by the machine's clock: if that is set back or the machine is busy, for up to
//! a minute. A worker of the runtime that waits so long may be the one on which all other tasks depend.

use std::ops::Deref;

use super::KafkaConfig;
use super::topic_error::TopicError;

/// Runs what creates a client, in a thread for blocking work.
///
/// # Errors
/// When it fails, or the runtime shuts down.
pub(crate) async fn create_client<T: Send + 'static>(
    config: &KafkaConfig,
    create: impl FnOnce(&KafkaConfig) -> Result<T, TopicError> + Send + 'static,
) -> Result<T, TopicError> {
    let own = config.clone();
    let created = tokio::task::spawn_blocking(move || create(&own)).await;
    created.unwrap_or_else(|error| Err(TopicError::unavailable(config, error)))
}

/// A client that is dropped in a thread of its own.
pub(crate) struct DropOnThread<T: Send + 'static>(Option<T>);

impl<T: Send + 'static> DropOnThread<T> {
    pub(crate) fn new(client: T) -> Self {
        Self(Some(client))
    }
}

impl<T: Send + 'static> Deref for DropOnThread<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // Empty only while it is dropped.
        #[allow(clippy::expect_used)]
        self.0.as_ref().expect("a client is used after its drop")
    }
}

impl<T: Send + 'static> Drop for DropOnThread<T> {
    fn drop(&mut self) {
        let client = self.0.take();
        let thread = std::thread::Builder::new().name("kafka-drop".into());
        if let Err(error) = thread.spawn(move || drop(client)) {
            tracing::warn!(%error, "failed to spawn the thread that drops a kafka client");
        }
    }
}
