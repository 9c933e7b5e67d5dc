//! Requests that describe and change topics: their client, the thread on which they run, and their time limits.

use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
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
/// The client is dropped on that thread: a drop waits for the client's threads, so it must not hold up a worker of the
/// runtime.
///
/// # Errors
/// When the client cannot be created, or the requests hang.
pub(super) async fn with_admin<T: Send + 'static>(
    config: &KafkaConfig,
    requests: impl AsyncFnOnce(&Admin) -> T + Send + 'static,
) -> Result<T, TopicError> {
    with_admin_for(HUNG_AFTER, config, requests).await
}

async fn with_admin_for<T: Send + 'static>(
    limit: Duration,
    config: &KafkaConfig,
    requests: impl AsyncFnOnce(&Admin) -> T + Send + 'static,
) -> Result<T, TopicError> {
    let run = async {
        let permit = THREADS.acquire().await.map_err(|closed| closed.to_string())?;
        let admin: Admin = config.client().create().map_err(|error| error.to_string())?;
        let (sender, output) = oneshot::channel();
        let runtime = Handle::current();
        let run = move || {
            let _permit = permit;
            // Nobody may wait any more.
            let _ = sender.send(runtime.block_on(requests(&admin)));
        };
        let thread = std::thread::Builder::new().name("kafka-admin".into());
        thread.spawn(run).map_err(|error| error.to_string())?;
        output.await.map_err(|_| "the thread of the requests has ended".to_owned())
    };
    let output = timeout(limit, run).await;
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
    use std::future::pending;

    use schemas::PartitionCount;

    use super::*;

    fn config() -> KafkaConfig {
        KafkaConfig {
            brokers: "127.0.0.1:9".into(),
            topic: "submissions".into(),
            definitions_topic: "definitions".into(),
            partitions: PartitionCount::new(2).unwrap(),
            replication_factor: 1,
            group: "group".into(),
            session_timeout: Duration::from_secs(6),
            delivery_timeout: Duration::from_millis(800),
            linger: Duration::from_millis(1),
        }
    }

    #[tokio::test]
    async fn requests_that_hang_are_given_up_and_hold_up_no_others() {
        let config = config();
        for _ in 1..MAX_THREADS {
            let hang = async |_: &Admin| pending::<()>().await;
            let hung = with_admin_for(Duration::from_millis(1), &config, hang).await;
            assert!(matches!(hung, Err(TopicError::Unavailable { .. })));
        }
        assert_eq!(with_admin(&config, async |_| 1).await, Ok(1));
        let panicked = with_admin(&config, async |_| panic!("a broken answer")).await;
        assert!(matches!(panicked, Err::<(), _>(TopicError::Unavailable { .. })));
        assert_eq!(with_admin(&config, async |_| 2).await, Ok(2));
    }
}
