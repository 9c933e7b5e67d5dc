//! What the clients of the control topic do with events of librdkafka.

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::producer::{DeliveryResult, ProducerContext};
use rdkafka::{ClientContext, Statistics};

use crate::log::kafka::connection_watch::ConnectionWatch;
use crate::log::kafka::{KafkaConfig, Rebootstrap};

/// Logs librdkafka's messages at debug level: it recovers by itself or also returns the error. The end of the partition
/// counts as an error to it, and being fenced by another change as a fatal one.
pub(super) struct QuietContext {
    pub rebootstrap: Rebootstrap,
    pub connections: ConnectionWatch,
}

impl QuietContext {
    pub fn new(config: &KafkaConfig) -> KafkaResult<Self> {
        let rebootstrap = Rebootstrap::new(&config.brokers)?;
        Ok(Self { rebootstrap, connections: ConnectionWatch::default() })
    }
}

impl ClientContext for QuietContext {
    fn log(&self, _level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(facility, message, "control topic client message");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "control topic client error");
    }

    fn stats(&self, statistics: Statistics) {
        self.rebootstrap.check(&statistics);
        self.connections.check(&statistics);
    }
}

impl ConsumerContext for QuietContext {}

impl ProducerContext for QuietContext {
    type DeliveryOpaque = ();

    /// Ignored: the commit of the transaction reports whether the record was written.
    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}
