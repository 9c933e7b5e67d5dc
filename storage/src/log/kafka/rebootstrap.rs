//! Recovers a client that has forgotten every broker.
//!
//! Metadata from a fenced broker (for example after a pause) may list no brokers at all. librdkafka then forgets all
//! brokers, and the arrival of that metadata cancels the re-bootstrap for good
//! (<https://github.com/confluentinc/librdkafka/issues/5301>). The client's statistics show it, and adding the
//! configured brokers again recovers the client.

use std::ffi::CString;
use std::sync::atomic::{AtomicBool, Ordering};

use rdkafka::bindings::rd_kafka_brokers_add;
use rdkafka::client::Client;
use rdkafka::error::KafkaError;
use rdkafka::{ClientContext, Statistics};

/// Detects from statistics that a client has lost all brokers. Adds the configured brokers again.
pub(crate) struct Rebootstrap {
    brokers: CString,
    lost: AtomicBool,
}

impl Rebootstrap {
    /// The statistics interval of a client that uses its statistics for nothing else.
    pub const STATISTICS_INTERVAL_MS: &str = "1000";

    /// Creates it for a client's brokers: `host:port`, comma-separated.
    pub fn new(brokers: &str) -> Result<Self, KafkaError> {
        Ok(Self { brokers: CString::new(brokers)?, lost: AtomicBool::new(false) })
    }

    /// Checks whether librdkafka still has a broker. It does not forget a broker that is only unreachable.
    pub fn check(&self, statistics: &Statistics) {
        let has_broker =
            |source: &str| statistics.brokers.values().any(|broker| broker.source == source);
        if !has_broker("learned") && !has_broker("configured") {
            self.lost.store(true, Ordering::Relaxed);
        }
    }

    /// Adds the configured brokers again if the client has lost them. Must be called whenever the client is polled.
    pub fn restore_brokers<C: ClientContext>(&self, client: &Client<C>) {
        if !self.lost.load(Ordering::Relaxed) {
            return;
        }
        self.lost.store(false, Ordering::Relaxed);
        tracing::warn!("kafka client lost all brokers, adding the configured brokers again");
        #[expect(unsafe_code, reason = "rdkafka has no safe call for it")]
        // SAFETY: the client is alive while it is borrowed. The function is thread-safe, and copies the zero-terminated
        // string.
        unsafe {
            rd_kafka_brokers_add(client.native_ptr(), self.brokers.as_ptr());
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::{Duration, Instant};

    use rdkafka::ClientConfig;
    use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
    use rdkafka::mocking::MockCluster;

    use super::*;

    struct Context(Rebootstrap);

    impl ClientContext for Context {
        fn stats(&self, statistics: Statistics) {
            self.0.check(&statistics);
        }
    }

    impl ConsumerContext for Context {}

    fn client(bootstrap: &str, brokers: &str) -> BaseConsumer<Context> {
        ClientConfig::new()
            .set("bootstrap.servers", bootstrap)
            .set("group.id", "tests")
            .set("statistics.interval.ms", "20")
            .create_with_context(Context(Rebootstrap::new(brokers).unwrap()))
            .unwrap()
    }

    fn poll_until(client: &BaseConsumer<Context>, done: impl Fn() -> bool) -> bool {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !done() && Instant::now() < deadline {
            let _ = client.poll(Duration::from_millis(10));
        }
        done()
    }

    #[test]
    fn a_client_without_brokers_connects_after_they_are_restored() {
        let cluster = MockCluster::new(1).unwrap();
        let client = client("", &cluster.bootstrap_servers());
        let lost = || client.context().0.lost.load(Ordering::Relaxed);
        assert!(poll_until(&client, lost));
        assert!(client.fetch_metadata(None, Duration::from_millis(100)).is_err());
        client.context().0.restore_brokers(client.client());
        assert_eq!(
            client.fetch_metadata(None, Duration::from_secs(10)).unwrap().brokers().len(),
            1
        );
    }

    #[test]
    fn an_unreachable_broker_does_not_count_as_lost() {
        let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let client = client(&unused.to_string(), &unused.to_string());
        let failed = std::cell::Cell::new(false);
        let deadline = Instant::now() + Duration::from_secs(10);
        while !failed.get() && Instant::now() < deadline {
            failed.set(matches!(client.poll(Duration::from_millis(10)), Some(Err(_))));
        }
        assert!(failed.get(), "no error reported that the broker is down");
        assert!(client.fetch_metadata(None, Duration::from_millis(100)).is_err());
        assert!(!client.context().0.lost.load(Ordering::Relaxed));
    }
}
