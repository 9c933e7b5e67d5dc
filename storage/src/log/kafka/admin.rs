//! Requests that describe and change topics: their client, the thread on which they run, and their time limits.

use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::KafkaError;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;

use super::KafkaConfig;
use super::topic_error::TopicError;

/// Bounds a request that changes or describes topics.
pub(super) const ADMIN_TIMEOUT: Duration = Duration::from_secs(10);
/// How long to wait before the brokers are asked again for what they may not know yet.
pub(super) const METADATA_POLL_INTERVAL: Duration = Duration::from_millis(50);
/// Requests that take longer together hang: the machine's clock, by which librdkafka waits, went back.
const HUNG_AFTER: Duration = Duration::from_secs(60);
/// Threads at the same time. One whose requests hang ends when the clock has caught up.
const MAX_THREADS: usize = 16;
static THREADS: Semaphore = Semaphore::const_new(MAX_THREADS);

/// The client of these requests.
pub(super) type Admin = AdminClient<DefaultClientContext>;

/// Runs requests with a client of their own, on a thread of their own, which they may block.
///
/// The client is created and dropped on that thread: both wait for the client's threads, so they must not hold up a worker
/// of the runtime.
///
/// # Errors
/// When the client cannot be created, or the requests hang.
pub(super) async fn with_admin<T: Send + 'static>(
    config: &KafkaConfig,
    requests: impl AsyncFnOnce(&Admin) -> T + Send + 'static,
) -> Result<T, TopicError> {
    run(&THREADS, HUNG_AFTER, config, requests).await
}

async fn run<T: Send + 'static>(
    threads: &'static Semaphore,
    hung_after: Duration,
    config: &KafkaConfig,
    requests: impl AsyncFnOnce(&Admin) -> T + Send + 'static,
) -> Result<T, TopicError> {
    let run = async {
        let permit = threads.acquire().await.map_err(|closed| closed.to_string())?;
        let (sender, output) = oneshot::channel();
        let (runtime, client) = (Handle::current(), config.client());
        let run = move || {
            // The client is dropped before the permit.
            let _permit = permit;
            let admin: Result<Admin, KafkaError> = client.create();
            // The caller may have timed out. It does not wait for the drop of the client.
            let _ = match &admin {
                Ok(admin) => sender.send(Ok(runtime.block_on(requests(admin)))),
                Err(error) => sender.send(Err(error.to_string())),
            };
        };
        let thread = std::thread::Builder::new().name("kafka-admin".into());
        thread.spawn(run).map_err(|error| error.to_string())?;
        output.await.map_err(|_| "the thread of the requests has ended".to_owned())?
    };
    let output = timeout(hung_after, run).await;
    output
        .unwrap_or_else(|_| Err("the kafka client has stopped".into()))
        .map_err(|reason| TopicError::unavailable(config, reason))
}

/// Returns the timeouts of all requests that change or describe topics.
pub(super) fn admin_options() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(ADMIN_TIMEOUT)).request_timeout(Some(ADMIN_TIMEOUT))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Notify;

    use super::*;
    use crate::log::kafka::test_config::config;

    #[tokio::test]
    async fn requests_that_hang_are_given_up_and_bounded_in_number() {
        static THREADS: Semaphore = Semaphore::const_new(2);
        let config = config("127.0.0.1:9".into());
        let (end, hung) = (Arc::new(Notify::new()), Arc::new(AtomicUsize::new(0)));
        let hang = || {
            let (end, hung) = (Arc::clone(&end), Arc::clone(&hung));
            async move |_: &Admin| {
                hung.fetch_add(1, Ordering::SeqCst);
                end.notified().await;
            }
        };
        while hung.load(Ordering::SeqCst) < 2 {
            let given_up = run(&THREADS, Duration::from_millis(100), &config, hang()).await;
            assert!(matches!(given_up, Err(TopicError::Unavailable { .. })));
        }
        let refused = run(&THREADS, Duration::from_millis(100), &config, async |_| ()).await;
        assert!(matches!(refused, Err(TopicError::Unavailable { .. })), "two requests hang");
        end.notify_one();
        let panic = async |_: &Admin| -> () { panic!("a broken answer") };
        let panicked = run(&THREADS, HUNG_AFTER, &config, panic).await;
        assert!(matches!(panicked, Err(TopicError::Unavailable { .. })));
        assert_eq!(run(&THREADS, HUNG_AFTER, &config, async |_| 1).await, Ok(1));
        end.notify_one();
    }
}
