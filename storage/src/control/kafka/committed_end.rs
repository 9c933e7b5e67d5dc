//! Where the committed records of the control topic end, and whether a consumer has read up to that end.
//!
//! A broker that has just become the partition's leader does not report the end of the committed records until it knows
//! that end (Kafka's KIP-207). Until then it serves the records that it knows to be committed, which may be fewer: a
//! consumer that has reached the end of the partition may lack committed records. So a decision by the topic's state
//! fetches the end first, and counts a read only if the read has reached that end.
//!
//! The consumers are `read_committed`, so the end is the last stable offset: behind the markers of all transactions
//! that have ended, and in front of one that is open. All records below it can be fetched at once, and no read waits
//! for a transaction.

use std::ops::Range;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::{Message, Offset};

use super::client_context::QuietContext;
use super::consumers::POLL_INTERVAL;
use super::record::ControlRecord;
use crate::log::kafka::KafkaConfig;
use crate::log::kafka::keep_awake::keep_awake;

/// Timeout of the broker's answer.
const END_TIMEOUT: Duration = Duration::from_secs(2);

/// Asks the leader for the offsets of the committed records, some of which may be compacted away.
pub(super) fn fetch_offsets(
    consumer: &BaseConsumer<QuietContext>,
    config: &KafkaConfig,
) -> KafkaResult<Range<i64>> {
    let (start, end) = consumer.fetch_watermarks(&config.control_topic, 0, END_TIMEOUT)?;
    Ok(start..end)
}

/// Polls a consumer that has read nothing yet until it has read all records with these offsets.
///
/// # Errors
/// When the end is not reached before the deadline.
pub(super) fn read_until(
    consumer: &BaseConsumer<QuietContext>,
    offsets: &Range<i64>,
    deadline: Instant,
    mut apply: impl FnMut(ControlRecord),
) -> KafkaResult<()> {
    keep_awake(consumer, || {
        loop {
            match consumer.poll(POLL_INTERVAL) {
                Some(Ok(message)) => {
                    if let Some(record) = ControlRecord::parse(&message) {
                        apply(record);
                    }
                    // While others write, the end of the partition may never be met.
                    if message.offset() + 1 >= offsets.end {
                        return Ok(());
                    }
                }
                None if has_read(consumer, offsets)? => return Ok(()),
                Some(Err(KafkaError::PartitionEOF(_))) if has_read(consumer, offsets)? => {
                    return Ok(());
                }
                Some(Err(error)) if Instant::now() > deadline => return Err(error),
                _ if Instant::now() > deadline => return Err(KafkaError::Canceled),
                _ => {}
            }
        }
    })
}

/// Whether everything up to the end has been polled, including the markers of transactions.
fn has_read(consumer: &BaseConsumer<QuietContext>, offsets: &Range<i64>) -> KafkaResult<bool> {
    let position = consumer.position()?;
    let polled = position
        .elements()
        .iter()
        .any(|partition| matches!(partition.offset(), Offset::Offset(next) if next >= offsets.end));
    Ok(offsets.is_empty() || polled)
}

/// The first read of the topic up to the end that its leader names.
#[derive(Default)]
pub(super) struct InitialRead {
    /// Whether a broker has served everything that it knew of.
    pub has_met_end: bool,
    /// The offsets of the committed records, once a leader has named them, and when.
    offsets: Option<(Range<i64>, Instant)>,
}

/// After this time without success the leader is asked again: the topic may have lost its end meanwhile.
const OFFSETS_MAX_AGE: Duration = Duration::from_secs(5);

impl InitialRead {
    /// Whether all records are read that were committed when the leader was asked. Asks it again if it did not answer.
    pub fn is_complete(
        &mut self,
        consumer: &BaseConsumer<QuietContext>,
        config: &KafkaConfig,
    ) -> bool {
        if !self.has_met_end {
            return false;
        }
        let is_recent = |asked_at: &Instant| asked_at.elapsed() < OFFSETS_MAX_AGE;
        if !self.offsets.as_ref().is_some_and(|(_, asked_at)| is_recent(asked_at)) {
            let fetched = fetch_offsets(consumer, config);
            self.offsets = fetched
                .inspect_err(
                    |error| tracing::debug!(%error, "failed to read the end of the control topic"),
                )
                .ok()
                .map(|offsets| (offsets, Instant::now()));
        }
        let offsets = self.offsets.as_ref();
        offsets.is_some_and(|(offsets, _)| has_read(consumer, offsets).unwrap_or(false))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) mod tests {
    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer};
    use schemas::{LogRef, PartitionCount};

    use super::*;
    use crate::control::kafka::consumers;

    const TOPIC: &str = "definitions";
    const BUDGET: &[u8] = br#"{"id":"parks","name":"Parks","categories":[
        {"id":"trees","name":"Trees"},{"id":"paths","name":"Paths"}]}"#;

    /// Starts a broker whose control topic has the definition of `parks`, at offset 0.
    pub fn cluster_with_a_definition() -> (MockCluster<'static, DefaultProducerContext>, KafkaConfig)
    {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic(TOPIC, 1, 1).unwrap();
        let config = config(cluster.bootstrap_servers());
        let producer: rdkafka::producer::BaseProducer = config.client().create().unwrap();
        producer.send(BaseRecord::to(TOPIC).partition(0).key("parks").payload(BUDGET)).unwrap();
        producer.flush(Duration::from_secs(30)).unwrap();
        (cluster, config)
    }

    fn config(brokers: String) -> KafkaConfig {
        let partitions = PartitionCount::new(1).unwrap();
        KafkaConfig {
            brokers,
            topic: LogRef::first("submissions", partitions).topic,
            control_topic: TOPIC.into(),
            partitions,
            replication_factor: 1,
            group: "group".into(),
            session_timeout: Duration::from_secs(6),
            delivery_timeout: Duration::from_secs(1),
            linger: Duration::from_millis(1),
        }
    }

    #[test]
    fn records_count_only_if_they_were_read_up_to_the_end_that_the_leader_has_named() {
        let (_cluster, config) = cluster_with_a_definition();
        let read = |offsets, timeout_s| {
            let mut records = 0;
            let deadline = Instant::now() + Duration::from_secs(timeout_s);
            let consumer = consumers::from_start(&config).unwrap();
            read_until(&consumer, &offsets, deadline, |_| records += 1).map(|()| records)
        };
        assert_eq!(read(0..1, 30), Ok(1));
        // A leader that serves fewer records than the former one had committed.
        assert!(read(0..2, 2).is_err());
        assert!(read(0..0, 30).is_ok(), "an empty topic has nothing to read");
        let consumer = consumers::from_start(&config).unwrap();
        assert_eq!(fetch_offsets(&consumer, &config), Ok(0..1));
    }

    #[test]
    fn the_topic_is_loaded_only_once_it_was_read_up_to_the_end_that_the_leader_names() {
        let (_cluster, config) = cluster_with_a_definition();
        let consumer = consumers::from_start(&config).unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        read_until(&consumer, &(0..1), deadline, |_| {}).unwrap();
        let mut read = InitialRead { has_met_end: true, offsets: Some((0..2, Instant::now())) };
        assert!(!read.is_complete(&consumer, &config), "the leader served less than it named");
        // The topic has lost its end since.
        let long_ago = Instant::now().checked_sub(OFFSETS_MAX_AGE).unwrap();
        read.offsets = Some((0..2, long_ago));
        assert!(read.is_complete(&consumer, &config));
        assert_eq!(read.offsets.as_ref().map(|(offsets, _)| offsets), Some(&(0..1)));
        read.has_met_end = false;
        assert!(!read.is_complete(&consumer, &config));
    }
}
