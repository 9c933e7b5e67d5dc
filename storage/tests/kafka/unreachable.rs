//! An unreachable Kafka.

use std::time::{Duration, Instant};

use storage::log::LogWriter;
use storage::log::kafka::{KafkaConfig, KafkaLogWriter};
use tokio::sync::watch;

use crate::support::{config, record};

#[tokio::test]
async fn appends_to_unreachable_kafka_fail_within_a_second_and_then_at_once() {
    let dead = KafkaConfig {
        brokers: "127.0.0.1:1".into(),
        delivery_timeout: Duration::from_millis(800),
        ..config(1)
    };
    let log =
        KafkaLogWriter::open_unchecked(&dead, &dead.first_log(), watch::channel(None).1).unwrap();
    let started = Instant::now();
    assert!(log.append(vec![record(0, 1, 1)]).await[0].is_err());
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    let again = Instant::now();
    assert!(log.available().is_err());
    assert!(log.append(vec![record(0, 1, 2)]).await[0].is_err());
    assert!(again.elapsed() < Duration::from_millis(50), "{:?}", again.elapsed());
}
