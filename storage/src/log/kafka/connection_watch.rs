//! Recognises a client that has stopped.
//!
//! librdkafka waits by the wall clock (`keep_awake`). After the clock has gone back, a thread that waits to reconnect
//! waits much longer, and no request wakes a producer's main thread. The client has to be replaced then.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::Statistics;
use rdkafka::statistics::Broker;

/// A connection that is to be made again changes its state earlier, by the backoff of `KafkaConfig::client`, and statistics
/// come at least every few seconds.
const CONNECTION_STUCK_AFTER: Duration = Duration::from_secs(15);
/// The states in which a thread waits, by the wall clock, to connect again.
const WAITING_STATES: [&str; 2] = ["TRY_CONNECT", "DOWN"];

/// What a client's statistics say of its connections, and when they said so.
pub(crate) struct ConnectionWatch {
    is_stuck: AtomicBool,
    checked_at: Mutex<Instant>,
}

impl Default for ConnectionWatch {
    fn default() -> Self {
        Self { is_stuck: AtomicBool::new(false), checked_at: Mutex::new(Instant::now()) }
    }
}

impl ConnectionWatch {
    /// Takes the client's latest statistics.
    pub fn check(&self, statistics: &Statistics) {
        let is_stuck = statistics.brokers.values().any(is_stuck);
        self.is_stuck.store(is_stuck, Ordering::Relaxed);
        *self.checked_at.lock() = Instant::now();
    }

    /// Whether a connection is stuck.
    pub fn is_stuck(&self) -> bool {
        self.is_stuck.load(Ordering::Relaxed)
    }

    /// Whether there were no statistics for long: the client's main thread has stopped.
    pub fn is_silent(&self, now: Instant) -> bool {
        let checked_at = *self.checked_at.lock();
        now.saturating_duration_since(checked_at) > CONNECTION_STUCK_AFTER
    }
}

fn is_stuck(broker: &Broker) -> bool {
    let in_state = Duration::from_micros(u64::try_from(broker.stateage).unwrap_or_default());
    // A coordinator that is not known yet has no address to connect to.
    let has_address = !broker.nodename.is_empty();
    has_address
        && in_state > CONNECTION_STUCK_AFTER
        && WAITING_STATES.contains(&broker.state.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch(state: &str, state_age: Duration) -> ConnectionWatch {
        let broker = Broker {
            nodename: "broker:9092".into(),
            state: state.to_owned(),
            stateage: i64::try_from(state_age.as_micros()).unwrap_or(i64::MAX),
            ..Broker::default()
        };
        let watch = ConnectionWatch::default();
        let brokers = [("broker".to_owned(), broker)].into();
        watch.check(&Statistics { brokers, ..Statistics::default() });
        watch
    }

    #[test]
    fn a_connection_is_stuck_if_it_waits_to_be_made_for_long() {
        let long = CONNECTION_STUCK_AFTER + Duration::from_secs(1);
        assert!(watch("TRY_CONNECT", long).is_stuck());
        assert!(watch("DOWN", long).is_stuck());
        assert!(!watch("TRY_CONNECT", Duration::from_secs(5)).is_stuck());
        assert!(!watch("UP", long).is_stuck());
        assert!(!watch("INIT", long).is_stuck());
        // It asks an unreachable name server.
        assert!(!watch("CONNECT", long).is_stuck());
    }

    #[test]
    fn a_client_without_statistics_for_long_is_silent() {
        let watch = watch("UP", Duration::ZERO);
        assert!(!watch.is_silent(Instant::now()));
        assert!(watch.is_silent(Instant::now() + CONNECTION_STUCK_AFTER + Duration::from_secs(1)));
    }
}
