//! Brings a client back that has lost every broker.
//!
//! The metadata of a broker that is fenced, as after it stood still, may name no broker at all. librdkafka then forgets
//! all that it knows, and the metadata's very arrival calls off the bootstrap that would follow, for good
//! (<https://github.com/confluentinc/librdkafka/issues/5301>). Its statistics show it; to be told the brokers again
//! mends it.

use std::ffi::CString;
use std::sync::atomic::{AtomicBool, Ordering};

use rdkafka::bindings::rd_kafka_brokers_add;
use rdkafka::client::Client;
use rdkafka::error::KafkaError;
use rdkafka::{ClientContext, Statistics};

/// What a client's context keeps to notice, and its polling thread uses to mend.
pub(crate) struct Rebootstrap {
    brokers: CString,
    lost: AtomicBool,
}

impl Rebootstrap {
    /// How often a client tells its statistics, unless it needs them for more.
    pub const STATISTICS_INTERVAL_MS: &str = "1000";

    /// For a client of these brokers: `host:port`, comma-separated.
    pub fn new(brokers: &str) -> Result<Self, KafkaError> {
        Ok(Self { brokers: CString::new(brokers)?, lost: AtomicBool::new(false) })
    }

    /// Looks whether librdkafka still knows a broker. One that it only cannot reach it does not forget.
    pub fn look(&self, statistics: &Statistics) {
        let knows =
            |source: &str| statistics.brokers.values().any(|broker| broker.source == source);
        if !knows("learned") && !knows("configured") {
            self.lost.store(true, Ordering::Relaxed);
        }
    }

    /// Tells the client its brokers again if it has lost them. To be called as often as it is polled.
    pub fn mend<C: ClientContext>(&self, client: &Client<C>) {
        if !self.lost.load(Ordering::Relaxed) {
            return;
        }
        self.lost.store(false, Ordering::Relaxed);
        tracing::warn!("librdkafka has lost every broker: it is told them again");
        #[expect(unsafe_code, reason = "rdkafka has no safe call for it")]
        // SAFETY: the client lives as long as it is borrowed, and the function may be called from any thread; it copies
        // the text, which ends in a zero.
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
            self.0.look(&statistics);
        }
    }

    impl ConsumerContext for Context {}

    fn client(knows: &str, brokers: &str) -> BaseConsumer<Context> {
        ClientConfig::new()
            .set("bootstrap.servers", knows)
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
    fn a_client_that_knows_no_broker_reaches_them_once_it_is_mended() {
        let cluster = MockCluster::new(1).unwrap();
        let client = client("", &cluster.bootstrap_servers());
        let lost = || client.context().0.lost.load(Ordering::Relaxed);
        assert!(poll_until(&client, lost));
        assert!(client.fetch_metadata(None, Duration::from_millis(100)).is_err());
        client.context().0.mend(client.client());
        assert_eq!(
            client.fetch_metadata(None, Duration::from_secs(10)).unwrap().brokers().len(),
            1
        );
    }

    #[test]
    fn a_broker_that_cannot_be_reached_is_not_lost() {
        let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let client = client(&nobody.to_string(), &nobody.to_string());
        let failed = std::cell::Cell::new(false);
        let deadline = Instant::now() + Duration::from_secs(10);
        while !failed.get() && Instant::now() < deadline {
            failed.set(matches!(client.poll(Duration::from_millis(10)), Some(Err(_))));
        }
        assert!(failed.get(), "nobody said that the broker is down");
        assert!(client.fetch_metadata(None, Duration::from_millis(100)).is_err());
        assert!(!client.context().0.lost.load(Ordering::Relaxed));
    }
}
