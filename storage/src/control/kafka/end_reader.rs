//! Reads the control topic to its end on request, in a thread of its own.
//!
//! The broker says where the committed records end; if that has not moved since the last read, nothing has been
//! committed since. Otherwise the whole topic is read again, which is small and compacted. All requests that wait share
//! one read.
//!
//! A broker that has just become the leader does not say where the records end before it knows it (Kafka's KIP-207),
//! but it serves what it knows to be committed, which may be less. So a read counts only if it has reached that end.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::Offset;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult};
use tokio::sync::{mpsc, oneshot};

use super::follower::{self, ControlRecord};
use super::{POLL_INTERVAL, QuietContext};
use crate::control::{Catalog, DefinitionError};
use crate::log::kafka::KafkaConfig;

/// Timeout of a request, including the time until the thread takes it.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(8);
/// Timeout of the broker's answer.
const END_TIMEOUT: Duration = Duration::from_secs(2);
/// Timeout of reading the topic with a new client. What is read after the requests have timed out serves the next ones.
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// Failures in a row after which the client is replaced: another one finds its brokers anew.
const MAX_FAILURES: u32 = 3;
/// Requests that wait for the thread; more wait outside.
const MAX_WAITING_REQUESTS: usize = 1_024;

type Confirmation = Result<Arc<Catalog>, DefinitionError>;

/// Sends requests to the thread, which ends once this is dropped.
pub(super) struct EndReader {
    requests: mpsc::Sender<oneshot::Sender<Confirmation>>,
}

impl EndReader {
    /// Starts the thread. Kafka is not asked before the first request.
    pub fn start(config: KafkaConfig) -> std::io::Result<Self> {
        let (requests, mut waiting) = mpsc::channel(MAX_WAITING_REQUESTS);
        std::thread::Builder::new().name("definitions-end".into()).spawn(move || {
            let mut thread = Thread { config, client: None, failures: 0, last: None };
            while let Some(first) = waiting.blocking_recv() {
                thread.answer(first, &mut waiting);
            }
        })?;
        Ok(Self { requests })
    }

    /// Returns the definitions as of a moment after this call.
    pub async fn read(&self) -> Confirmation {
        let (request, confirmation) = oneshot::channel();
        let read = async {
            self.requests.send(request).await.ok()?;
            confirmation.await.ok()
        };
        let read = tokio::time::timeout(REQUEST_TIMEOUT, read).await;
        read.ok().flatten().unwrap_or_else(|| Err(unavailable("no answer in time")))
    }
}

fn unavailable(reason: impl ToString) -> DefinitionError {
    DefinitionError::Unavailable(reason.to_string())
}

struct Thread {
    config: KafkaConfig,
    /// The client that asks where the topic ends.
    client: Option<BaseConsumer<QuietContext>>,
    /// Failures since the last success.
    failures: u32,
    /// The last read: the topic's end, and the definitions below it.
    last: Option<(i64, Arc<Catalog>)>,
}

impl Thread {
    /// Answers a request, and those that wait behind it: all were made before the read begins.
    fn answer(
        &mut self,
        first: oneshot::Sender<Confirmation>,
        waiting: &mut mpsc::Receiver<oneshot::Sender<Confirmation>>,
    ) {
        let mut requests = vec![first];
        while let Ok(request) = waiting.try_recv() {
            requests.push(request);
        }
        // Nobody waits any more: do not spend seconds on an unreachable Kafka.
        requests.retain(|request| !request.is_closed());
        if requests.is_empty() {
            return;
        }
        let read = self.read_end().map_err(|error| {
            tracing::debug!(%error, "failed to read the end of the control topic");
            self.failures += 1;
            if self.failures >= MAX_FAILURES {
                (self.client, self.failures) = (None, 0);
            }
            unavailable(error)
        });
        for request in requests {
            // The request may have timed out.
            let _ = request.send(read.clone());
        }
    }

    fn read_end(&mut self) -> KafkaResult<Arc<Catalog>> {
        let client = match self.client.take() {
            Some(client) => client,
            None => follower::client(&self.config)?,
        };
        let client = self.client.insert(client);
        // Serves the client's events; it consumes nothing.
        let _ = client.poll(Duration::ZERO);
        let topic = &self.config.definitions_topic;
        let (start, end) = client.fetch_watermarks(topic, 0, END_TIMEOUT)?;
        self.failures = 0;
        match &self.last {
            Some((last, catalog)) if *last == end => return Ok(Arc::clone(catalog)),
            // The topic has lost records that were committed.
            Some((last, _)) if *last > end => return Err(KafkaError::Canceled),
            _ => {}
        }
        let catalog =
            Arc::new(read_until(&self.config, start..end, Instant::now() + READ_TIMEOUT)?);
        self.last = Some((end, Arc::clone(&catalog)));
        Ok(catalog)
    }
}

/// Reads all committed definitions of a topic whose records have these offsets, some of which may be compacted away.
fn read_until(
    config: &KafkaConfig,
    offsets: Range<i64>,
    deadline: Instant,
) -> KafkaResult<Catalog> {
    let consumer = follower::consumer(config)?;
    let mut catalog = Catalog::default();
    loop {
        match consumer.poll(POLL_INTERVAL) {
            Some(Ok(message)) => {
                if let Some(ControlRecord::Budget(id, stored)) = ControlRecord::parse(&message) {
                    catalog = catalog.with_stored(&id, *stored);
                }
            }
            Some(Err(KafkaError::PartitionEOF(_))) if has_read(&consumer, &offsets)? => {
                return Ok(catalog);
            }
            Some(Err(error)) if Instant::now() > deadline => return Err(error),
            _ if Instant::now() > deadline => return Err(KafkaError::Canceled),
            _ => {}
        }
    }
}

/// Whether everything up to the end has been polled, including the markers of transactions.
fn has_read(consumer: &impl Consumer<QuietContext>, offsets: &Range<i64>) -> KafkaResult<bool> {
    let position = consumer.position()?;
    let polled = position
        .elements()
        .iter()
        .any(|partition| matches!(partition.offset(), Offset::Offset(next) if next >= offsets.end));
    Ok(offsets.is_empty() || polled)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer};
    use schemas::{LogRef, PartitionCount};

    use super::*;

    const TOPIC: &str = "definitions";
    const BUDGET: &[u8] = br#"{"id":"parks","name":"Parks","categories":[
        {"id":"trees","name":"Trees"},{"id":"paths","name":"Paths"}]}"#;

    fn cluster() -> MockCluster<'static, DefaultProducerContext> {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic(TOPIC, 1, 1).unwrap();
        cluster
    }

    fn config(brokers: String) -> KafkaConfig {
        let partitions = PartitionCount::new(1).unwrap();
        KafkaConfig {
            brokers,
            topic: LogRef::first("submissions", partitions).topic,
            definitions_topic: TOPIC.into(),
            partitions,
            replication_factor: 1,
            group: "group".into(),
            session_timeout: Duration::from_secs(6),
            delivery_timeout: Duration::from_secs(1),
            linger: Duration::from_millis(1),
        }
    }

    #[test]
    fn definitions_count_only_if_they_were_read_up_to_the_end_that_the_leader_has_named() {
        let cluster = cluster();
        let config = config(cluster.bootstrap_servers());
        let producer: rdkafka::producer::BaseProducer = config.client().create().unwrap();
        producer.send(BaseRecord::to(TOPIC).partition(0).key("parks").payload(BUDGET)).unwrap();
        producer.flush(Duration::from_secs(30)).unwrap();

        let soon = || Instant::now() + Duration::from_secs(30);
        let catalog = read_until(&config, 0..1, soon()).unwrap();
        assert!(catalog.get("parks").is_some());
        // A leader that serves fewer records than the former one had committed.
        let behind = read_until(&config, 0..2, Instant::now() + Duration::from_secs(2));
        assert!(behind.is_err(), "{behind:?}");
        assert_eq!(read_until(&config, 0..0, soon()).map(|catalog| catalog.iter().count()), Ok(1));
    }
}
